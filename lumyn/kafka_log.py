"""The log of the configured brokers, and little else: stopping actions must not wait for what it has no use for."""

from __future__ import annotations

from lumyn.config import Settings
from lumyn.subject_keys import subject_keys
from schemas.errors import BadConfig

try:
    from streams.kafka.client import KafkaSettings
    from streams.kafka.log import KafkaLog
except ImportError as error:  # pragma: no cover - the packaging tests install without the extra
    raise BadConfig(f"LUMYN_KAFKA needs {error.name}", help="pip install 'lumyn-streams[kafka]'") from None


def kafka_log(settings: Settings) -> KafkaLog:
    """The log of the configured brokers; nothing is asked of them yet."""
    assert settings.kafka is not None
    timeout = settings.runtime_setting("kafka_timeout_s", 15.0)
    log = KafkaLog(
        KafkaSettings(settings.kafka, dict(settings.kafka_options), timeout_s=timeout), prefix=settings.prefix
    )
    log.keys = subject_keys(settings)
    return log
