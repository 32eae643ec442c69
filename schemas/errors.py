"""The one error base: what went wrong, where, and what to do, with a stable code and an exit code."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

EXIT_OK = 0
EXIT_DIFFERENT = 1
EXIT_USAGE = 2
EXIT_INTEGRITY = 3
EXIT_UNREACHABLE = 4


_Error = TypeVar("_Error", bound=BaseException)


def to_keep(error: _Error) -> _Error:
    """An error that is kept as a result, without how it came about.

    A traceback holds the frames it went through and all that they hold, and most often ends where the error itself is
    kept: a circle that lives until the collector comes by, with a whole batch in it.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


class LumynError(Exception):
    """Base of every error shown to a user.

    `message` is lower case and says what; `where` is `path:line:column` or `topic/partition/offset`;
    `help` says what to do. `code` never changes once released: callers match on it.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_USAGE

    def __init__(self, message: str, *, where: str | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.help = help

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  help: {self.help}" if self.help else text

    def as_dict(self) -> dict[str, Any]:
        """JSON form: `{code, message, where?, help?}`."""
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.where:
            out["where"] = self.where
        if self.help:
            out["help"] = self.help
        return out


class BadInput(LumynError):
    """A document that can't be read or does not meet its contract."""

    code = "bad_input"


class BadJson(BadInput):
    """Bytes that are not the JSON we accept (RFC 8259, no duplicates, no NaN, bounded)."""

    code = "bad_json"


class TooLarge(BadInput):
    """A document over a fixed limit of size or depth."""

    code = "too_large"


class BadRequest(BadInput):
    """A decision request that breaks the request contract."""

    code = "bad_request"


class BadQuery(BadInput):
    """A query that does not parse; `where` points at the column."""

    code = "bad_query"


class WrongKind(BadInput):
    """A file of another kind than was asked for. One of the kind that was damaged is an `IntegrityError`."""

    code = "wrong_kind"


class BadConfig(LumynError):
    """A setting that can't be used."""

    code = "bad_config"


class UsageError(LumynError):
    """A command called in a way that can't be carried out."""

    code = "usage"


class Unauthorized(LumynError):
    """No API key, or one that is unknown, revoked or expired."""

    code = "unauthorized"


class Forbidden(LumynError):
    """A key that is good, and may not do this: its roles, or another tenant's data."""

    code = "forbidden"


class RateLimited(LumynError):
    """More requests than the key may make; `retry_after_s` says when the next one may come."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, help=f"wait {retry_after_s:.3g} s")
        self.retry_after_s = retry_after_s


class NotFound(LumynError):
    """No such decision, policy, key or file."""

    code = "not_found"


class DecisionPending(LumynError):
    """The request is in the log, and nobody has decided it in time: it will be."""

    code = "pending"
    exit_code = EXIT_UNREACHABLE


class RequestConflict(LumynError):
    """The same `request_id` came with another body: nothing was decided."""

    code = "request_conflict"


class FileInvalid(BadInput):
    """A file of ours that does not validate; `problems` holds every finding as `path:line:column: message`."""

    def __init__(self, problems: list[str]) -> None:
        count = len(problems)
        super().__init__("\n".join(problems), help=f"{count} problem{'s' if count != 1 else ''} found")
        self.problems = problems

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "problems": self.problems}


class PolicyInvalid(FileInvalid):
    """A policy that does not validate."""

    code = "policy_invalid"


class ScenarioInvalid(FileInvalid):
    """A game day's scenario that does not validate."""

    code = "scenario_invalid"


class RunbookInvalid(FileInvalid):
    """A runbook that does not validate."""

    code = "runbook_invalid"


class PolicyConflict(LumynError):
    """The same name@version was published with another content."""

    code = "policy_conflict"


class Erased(LumynError):
    """What was personal in it was forgotten: its subject's key is gone for good."""

    code = "erased"


class OnHold(LumynError):
    """A legal hold stops what was asked; the message holds the reason."""

    code = "on_hold"


class IntegrityError(LumynError):
    """A digest, signature or re-evaluation that does not agree with what is recorded."""

    code = "integrity"
    exit_code = EXIT_INTEGRITY


class IrHashMismatch(IntegrityError):
    """A record, or the program that it names, is not what decided: it can't be replayed as if it were."""

    code = "ir_hash_mismatch"


class BadPack(IntegrityError):
    """A pack that can't be opened or whose parts don't belong together."""

    code = "bad_pack"


class StorageUnavailable(LumynError):
    """The log, the memory or the index can't be reached or written."""

    code = "storage_unavailable"
    exit_code = EXIT_UNREACHABLE


class MemoryUnavailable(StorageUnavailable):
    """The vector memory can't answer; the decision goes on as the policy says."""

    code = "memory_unavailable"
    exit_code = EXIT_UNREACHABLE


class Fenced(StorageUnavailable):
    """Another process owns the partition now; this writer must stop."""

    code = "fenced"
    exit_code = EXIT_UNREACHABLE


class KeysUnavailable(StorageUnavailable):
    """The subjects' keys can't be read or written: nothing is sealed or opened, and so nothing decided."""

    code = "keys_unavailable"
    exit_code = EXIT_UNREACHABLE


class KeyMissing(LumynError):
    """What is sealed has a key that this key store never had: it is another store's."""

    code = "key_missing"
    exit_code = EXIT_UNREACHABLE
