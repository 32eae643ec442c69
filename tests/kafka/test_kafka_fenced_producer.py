"""Producers that are fenced with much under way, over and over: whoever lets go of them lives on."""

from __future__ import annotations

import subprocess
import sys
import uuid

SCRIPT = """
import sys
from contextlib import suppress
from schemas.errors import LumynError
from streams.kafka.client import KafkaClient, KafkaSettings
from streams.kafka.facts import NewTopicSpec
client, name = KafkaClient(KafkaSettings(sys.argv[1])), sys.argv[2]
client.create_topics([NewTopicSpec(name, 8, 1, {})])
fenced = 0
for _ in range(25):
    old = client.producer(name)
    old.open()
    old.begin()
    for n in range(16):
        old.send((name, n % 8), b"k", b"v")
    old.serve(0.02)
    new = client.producer(name)
    new.open()
    try:
        for n in range(400):
            old.send((name, n % 8), b"k", b"v" * 100)
        old.commit()
    except LumynError as error:
        fenced += error.code == "fenced"
    old.close()
    with suppress(LumynError):
        new.close()
client.delete_topics([name])
print("fenced", fenced)
"""


def test_a_process_outlives_its_fenced_producers(kafka: str) -> None:
    """A native crash ends a process without a word, so it is looked for in one of its own."""
    command = [sys.executable, "-X", "faulthandler", "-c", SCRIPT, kafka, f"fenced-{uuid.uuid4().hex[:8]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, "fenced 25\n"), done.stderr[-3000:]
