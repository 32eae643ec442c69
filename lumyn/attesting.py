"""Attesting in a home: verify a period, collect its logic, sign; and check what others attested."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lumyn.checkpointing import home_chain, home_checkpointer
from lumyn.config import resolve
from lumyn.home import LOG_FILE, Home
from lumyn.replaying import believed, trusted_keys
from lumyn.wiring import operator_home
from schemas.attestation import Attestation, Covered, Source, Statement
from schemas.errors import IntegrityError, NotFound, StorageUnavailable, UsageError, WrongKind
from schemas.ids import iso_time, time_ms_of
from schemas.limits import MAX_PACK_BYTES
from streams.attestation import (
    Collected,
    check_attestation,
    make_statement,
    read_attestation,
    sign_attestation,
)
from streams.checkpoints import Chain
from streams.decide_agent import GROUP
from streams.decided import decided_up_to
from streams.integrity import Check, require
from streams.reading import is_embedded
from streams.signing import PublicKey
from streams.slots import Finding
from streams.span import Span, parse_span
from streams.sweep import Summary, verify_all
from streams.topics import REQUESTS


@dataclass(frozen=True, slots=True)
class Attested:
    """An attestation; or, where a check failed, none, and what failed."""

    attestation: Attestation | None
    failed: list[Finding]
    decisions: int


def attest(
    home: Home,
    start: str,
    end: str,
    *,
    environment: str | None,
    other: Attestation | None,
    with_policies: bool,
    now_ms: int,
) -> Attested:
    """Verify every decision of a period and sign what its logic was. Raises `UsageError`, `NotFound`.

    The embedded log is checkpointed first, so that all that is attested is covered.
    """
    span = _period(start, end, now_ms)
    _require_decided(home, span)
    if is_embedded(home.log):
        with suppress(IntegrityError, StorageUnavailable):
            home_checkpointer(home).run()
    chain, summary = home_chain(home), Summary()
    collected, failed = _collect(home, chain, span, summary, now_ms)
    if failed:
        return Attested(None, failed, summary.decisions)
    if not collected.decisions:
        raise NotFound("there are no decisions in this period: nothing can be attested", where=f"{start} to {end}")
    covered: Covered = {
        "head": chain.last_digest,
        "decisions": summary.covered,
        "not_covered": summary.after_last + summary.never_covered,
    }
    assert span.start is not None and span.end is not None
    key = home.signing_key()
    statement = make_statement(
        collected,
        environment=environment or home.settings.prefix,
        tenant=home.settings.tenant,
        log=home.log.epoch,
        period=(iso_time(span.start), iso_time(span.end)),
        made_at=iso_time(now_ms),
        checkpoints=covered,
        key=key,
        other=other,
    )
    policies = _sources(home, statement) if with_policies else None
    return Attested(sign_attestation(statement, key, policies), [], summary.decisions)


def _period(start: str, end: str, now_ms: int) -> Span:
    """The span between two times, not beyond now: what is still to come can't be attested."""
    span = parse_span(start, end, now_ms=now_ms)
    if span.partition is not None or span.start is None or span.end is None:
        raise UsageError("an attestation is about a period: `--from` and `--to` are times")
    if span.start >= now_ms:
        raise UsageError("the period has not begun yet")
    return Span(span.start, min(span.end, now_ms))


def _require_decided(home: Home, span: Span) -> None:
    """What waits now would be decided later, inside a period that was attested without it. Raises `UsageError`."""
    for partition in range(home.log.partitions(REQUESTS)):
        offsets = span.offsets(home.log, partition)
        if offsets is None:
            continue
        decided = max(home.log.committed(GROUP, REQUESTS, partition), decided_up_to(home.log, partition))
        waiting = home.log.read(REQUESTS, partition, decided, 1)
        if waiting and (offsets[1] is None or waiting[0].offset < offsets[1]):
            raise UsageError(
                "requests of this period are not decided yet",
                where=f"{REQUESTS}/{partition}/{waiting[0].offset}",
                help="attest when they are, or give a `--to` before them",
            )


def _collect(
    home: Home, chain: Chain, span: Span, summary: Summary, now_ms: int
) -> tuple[Collected, list[Finding]]:
    collected, failed = Collected(), []
    tenant = home.settings.tenant
    for finding in verify_all(home.log, chain, summary, now_ms=now_ms, tenant=tenant, span=span):
        if finding.failed:
            failed.append(finding)
        elif finding.record is not None:
            collected.add(finding.record)
    return collected, failed


def _sources(home: Home, statement: Statement) -> list[Source]:
    """Each document that decided, once."""
    published = home.agent.control().policies
    hashes = dict.fromkeys(document["hash"] for one in statement["logic"] for document in one["documents"])
    return [
        {"name": published[name].name, "hash": name, "source": published[name].source}
        for name in hashes
        if name in published
    ]


_MARKS: Final = (b'"statement"', b'"public_key"', b'"signature"', b'"policies"')
"""The names of its parts; without any it never was one."""


def is_attestation(path: Path) -> bool:
    """Whether a file looks like JSON rather than like a pack. Never raises."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] == b"{"
    except (OSError, ValueError):  # no file, or what can't be a file's name
        return False


def load_attestation(path: Path) -> Attestation:
    """An attestation from a file, not yet believed. Raises `NotFound`, `WrongKind`, `IntegrityError`."""
    try:
        if path.stat().st_size > MAX_PACK_BYTES:
            raise IntegrityError("too large for an attestation", where=str(path))
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound("no such file", where=str(path)) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
    if not any(mark in data for mark in _MARKS):
        raise WrongKind("neither an attestation nor a pack", where=str(path), help="`lumyn verify --help` names both")
    return read_attestation(data, str(path))


def attester(path: Path) -> PublicKey:
    """The key that signed an attestation, which holds. Raises `IntegrityError`."""
    attestation = load_attestation(path)
    require(check_attestation(attestation), where=str(path))
    return PublicKey.from_text(attestation["public_key"])


def check_here(attestation: Attestation, *, trust_signer: bool, now_ms: int) -> list[Check]:
    """Every check of an attestation: its own, whose key it is, and, where its log is here, the log itself again."""
    checks = check_attestation(attestation)
    if not all(check.ok for check in checks):
        return checks
    settings, statement = resolve(), attestation["statement"]
    checks[0] = believed(statement["key_id"], trust_signer, settings.home)
    if not checks[0].ok or (settings.kafka is None and not (settings.home / LOG_FILE).exists()):
        return checks
    home = operator_home()
    if home.log.epoch == statement["log"] and home.settings.tenant == statement["tenant"]:
        checks += _against_log(home, statement, now_ms)
    return checks


def _against_log(home: Home, statement: Statement, now_ms: int) -> list[Check]:
    """The log must still say what was attested, and its checkpoints still hold the one that was the newest then."""
    head = statement["checkpoints"]["head"]
    chain = home_chain(home, wanted=head)
    try:
        span = Span(time_ms_of(statement["start"]), time_ms_of(statement["end"]))
    except (ValueError, OverflowError):
        return [Check("log", False, "its period is not a period of time")]
    collected, failed = _collect(home, chain, span, Summary(), now_ms)
    checks = []
    if head is not None:
        gone = "the checkpoint that was the newest then is not in this log any more"
        checks.append(Check("chain", chain.seen_wanted, "" if chain.seen_wanted else gone))
    if failed:
        detail = "; ".join(f"{finding.name}: {finding.failed[0].name} failed" for finding in failed[:3])
        return [*checks, Check("log", False, detail)]
    for name in ("decisions", "records", "logic", "kill_switch", "internal_error"):
        if getattr(collected, name) != statement[name]:
            return [*checks, Check("log", False, f"this log gives another `{name}` for the period")]
    return [*checks, Check("log", True, f"{collected.decisions} decisions of this log verified again")]


def whose(attestation: Attestation) -> str | None:
    """What to say where no home knows whose key signed."""
    if trusted_keys(resolve().home) is not None:
        return None
    key_id = attestation["statement"]["key_id"]
    return f"signed by key {key_id}; no key is known here to say whose that is: ask who attested, by another way"
