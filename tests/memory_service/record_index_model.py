"""Records, labels and queries for the record index's suites, and what a query must find, by brute force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from ulid import ULID

from memory_service.record_index import Fetch, IndexedRecord, facts_of
from schemas.digests import digest
from schemas.ids import iso_time
from schemas.label import LabelEvent
from schemas.query import FIELDS, And, Expression, Field, Not, OneOf, Or, Query, Range, matches, parse_query

NOW = 1_734_620_430_000
EPOCH = "epoch"
Record = dict[str, Any]


def query(text: str) -> Query:
    return parse_query(text, now_ms=NOW)


def record(
    n: int = 0, *, at: int = NOW, tenant: str = "default", verdict: str = "DENY", action: str = "refund",
    reasons: Sequence[str] = ("LIMIT",), rules: Sequence[str] = ("R1",), policy: str = "refunds",
    version: str = "1", amount: Any = None, usd: float | None = None, subject: str = "usr_1",
    request_id: str | None = None, provenance: Mapping[str, Any] | None = None,
    evidence: Mapping[str, Any] | None = None, failure: float = 0.0,
) -> Record:  # fmt: skip
    """A record with what an index looks at; `n` makes its id differ from others of the same time."""
    facts = [{"fact": "amount_usd", "op": "gt", "want": 1, "value": usd}] if usd is not None else []
    request: Record = {"subject": {"type": "user", "id": subject}, "action": {"type": action}, "tenant": tenant}
    if amount is not None:
        request["action"]["amount"] = amount
    if evidence is not None:
        request["evidence"] = dict(evidence)
    return {
        "schema": "lumyn.record/1", "engine": "lumyn-engine/1", "request_id": request_id, "tenant": tenant,
        "decision_id": str(ULID.from_bytes(at.to_bytes(6, "big") + n.to_bytes(10, "big"))),
        "created_at": iso_time(at), "request": request, "inputs_digest": digest(f"{n}/{at}".encode()),
        "policy": {"name": policy, "version": version, "hash": "sha256:0"}, "verdict": verdict,
        "reason_codes": list(reasons), "provenance": dict(provenance or {}),
        "matched_rules": [
            {"id": rule, "stage": "S", "effect": verdict, "outcome": "matched", "reason_codes": [], "facts": facts}
            for rule in rules
        ],
        "risk_signals": {"failure_similarity": {"score": failure, "top_k": []}, "uncertainty_score": 1.0},
    }  # fmt: skip


def label(version: int, of: Record, name: str | None, kind: str = "label") -> LabelEvent:
    event: Any = {
        "version": version, "event_id": f"e{version}", "decision_id": of["decision_id"], "tenant": of["tenant"],
        "type": kind, "label": name, "should": None, "summary": "", "actor": "ann", "at": of["created_at"],
        "job": None, "decision": None,
    }  # fmt: skip
    return event  # type: ignore[no-any-return]


def placed(records: Sequence[Record]) -> list[tuple[int, int, Record]]:
    return [(0, offset, item) for offset, item in enumerate(records)]


def fetch_from(records: Sequence[Record]) -> Fetch:
    return lambda _, offset: records[offset] if offset < len(records) else None


def ids(found: Sequence[IndexedRecord]) -> list[str]:
    return [item.decision_id for item in found]


@dataclass
class History:
    """Records in the order of the log and the label events on them."""

    records: list[Record]
    events: list[LabelEvent] = field(default_factory=list)

    def matching(self, asked: Query, tenant: str | None) -> list[str]:
        """The ids that `find` must list, oldest first, each decision looked at by itself."""
        said = {event["decision_id"]: event["label"] for event in self.events}
        return sorted(
            item["decision_id"] for item in self.records
            if tenant in (None, item["tenant"]) and matches(asked, facts_of(item, said.get(item["decision_id"])))
        )  # fmt: skip


HOSTILE = (
    "", " ", "'", '"', "x'; DROP TABLE rows; --", "%", "_", "*", "\\", "\x00", "a\x00b", "null", "NULL", "a=b", "=", "a%3Db",
    "é𐍈", "e\u0301", "\u200b", "\U0010ffff", "x" * 128, "x" * 129, "x" * 10_000, "x" * 9_999 + "y",
)  # fmt: skip
_WORDS = ("refund", "usr_1", "Usr_1", "r1", "p", "1", "m1", "m2", "7", "7.0", "A", "B", "R1", "USD", "gold")
_TENANTS = ("default", "other", *HOSTILE[1:4])
_NUMBERS = (0, -1, 7, 7.5, 500, 0.1 + 0.2, 0.3, 2**53 - 1, 1 - 2**53, 1e300, -1e300, 5e-324, -5e-324, 1.0)
_TIMES = (NOW - 86_400_000, NOW - 60_000, NOW - 1, NOW, NOW + 1, 0, 253_402_300_799_999)
_NAMES = ("model", "a", "a.b", "a.b.c", "a=b", "b", HOSTILE[2], HOSTILE[10], "x" * 128, "x" * 129)

_text = st.sampled_from((*_WORDS, *HOSTILE))
_number = st.sampled_from(_NUMBERS)
_other = st.sampled_from([7, 0.5, True, None, ["m1", "m2"], {"b": "m1"}, {"b": {"c": "m1"}, "b.c": "m2"}, {"b": 7}])
_provenance = st.dictionaries(st.sampled_from(_NAMES), _text | _other, max_size=4)
_evidence = st.none() | st.dictionaries(
    st.sampled_from(["risk", "vip"]), st.sampled_from([0.5, 7, "7", True, "gold", None, ["gold", 7]]), max_size=2
)
_amount = st.none() | _number | st.just("7") | st.fixed_dictionaries(
    {"value": _number, "currency": st.sampled_from(["USD", "EUR", None, *HOSTILE[:3]])}
)
records = st.builds(
    record, n=st.integers(0, 2**80 - 1) | st.integers(0, 3), at=st.sampled_from(_TIMES),
    tenant=st.sampled_from(_TENANTS), verdict=st.sampled_from(["ALLOW", "DENY", "ABSTAIN"]),
    action=_text, reasons=st.lists(st.sampled_from(["A", "B", "LIMIT", *HOSTILE]), max_size=3),
    rules=st.lists(st.sampled_from(["R1", "R2", *HOSTILE]), max_size=2), policy=_text,
    version=st.sampled_from(["1", "2", *HOSTILE[:6]]), amount=_amount, usd=st.none() | _number,
    subject=_text, request_id=st.none() | _text, provenance=_provenance, evidence=_evidence,
    failure=st.sampled_from([0.0, 0.5, 0.94, 1]),
)  # fmt: skip


@st.composite
def histories(draw: st.DrawFn, most: int = 20) -> History:
    """Records of different ids, some of them labelled, some of those twice."""
    made = draw(st.lists(records, max_size=most, unique_by=lambda item: item["decision_id"]))
    said = draw(st.lists(st.tuples(
        st.integers(0, max(0, len(made) - 1)), st.sampled_from(["failure", "success", "retracted", None])
    ), max_size=6 if made else 0))  # fmt: skip
    kinds = {None: "restore"}  # which leaves nothing said
    return History(
        made,
        [label(number, made[at], name, kinds.get(name, "label")) for number, (at, name) in enumerate(said, 1)],
    )


_TEXTS = st.sampled_from(["refund", "usr_1", "r1", "p", "1", "m1", "'7'", "7", "LIMIT", "R1", "null", "''", "USD",
                          "lumyn-engine/1", "default", "gold", "true", "'x y'", "q@2", "0.5"])  # fmt: skip
_FIGURES = st.sampled_from(["0", "-0.0", "7", "7.5", "500", "-1", "0.5", "0.3", "9007199254740991", "1e300"])
_WRITTEN_TIMES = st.sampled_from(["'14:59'", "'15:00'", "'15:00:30'", "2024-12-18", "2024-12-19", "'15:00:29.999'",
                                  "1999-01-01", "'15:00:30.000'", "'9998-12-31'"])  # fmt: skip


def _comparison(name: str, values: st.SearchStrategy[str], ordered: bool) -> st.SearchStrategy[str]:
    signs = ["=", "!="] + (["<", "<=", ">", ">="] if ordered else [])
    listed = st.lists(values, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        st.builds("{} {} {}".format, st.just(name), st.sampled_from(signs), values),
        st.builds("{} {} ({})".format, st.just(name), st.sampled_from(["IN", "NOT IN"]), listed),
    )


_written_leaf = st.one_of(
    *(_comparison(name, _TEXTS, False)
      for name in ("action_type", "tenant", "reason", "rule", "policy", "policy_version", "request_id", "subject_id",
                   "subject_type", "currency", "engine", "inputs_digest", "decision_id")),
    *(_comparison(name, _TEXTS, True)
      for name in ("provenance.model", "provenance.a.b", "provenance.a", "evidence.risk", "action.amount.value")),
    *(_comparison(name, _FIGURES, True)
      for name in ("amount", "amount_usd", "uncertainty_score", "failure_similarity")),
    _comparison("verdict", st.sampled_from(["ALLOW", "DENY", "ESCALATE"]), False),
    _comparison("label", st.sampled_from(["none", "failure", "success", "retracted"]), False),
    _comparison("created_at", _WRITTEN_TIMES, True),
)  # fmt: skip
written_queries = st.recursive(
    _written_leaf,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner), st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner), st.builds("{} AND {}".format, _written_leaf, _written_leaf),
    ),
    max_leaves=6,
).map(query)  # fmt: skip
"""What a user may write."""

_PATHS = ("provenance.model", "provenance.a", "provenance.a.b", "provenance.a.b.c", "provenance.a=b", "provenance.b",
          "provenance." + HOSTILE[2], "provenance." + HOSTILE[10], "provenance." + "x" * 128, "provenance." + "x" * 129,
          "evidence.risk", "action.amount.value", "subject.id", "context.channel")  # fmt: skip


@st.composite
def _leaf(draw: st.DrawFn) -> Expression:
    path = draw(st.none() | st.sampled_from(_PATHS))
    if path is not None:
        asked, kind = Field(path, "any", tuple(path.split(".")[1:])), "any"
    else:
        name = draw(st.sampled_from([*FIELDS, "tenant", "subject_id"]))
        asked, kind = Field(name, FIELDS[name]), FIELDS[name]
    values: st.SearchStrategy[Any] = {
        "verdict": st.sampled_from(["ALLOW", "DENY", "ABSTAIN", "ESCALATE"]),
        "label": st.sampled_from(["none", "failure", "success", "retracted"]),
        "time": st.sampled_from(_TIMES), "number": _number, "id": _text,
    }.get(kind, _text)  # fmt: skip
    if kind == "any":
        values = _text | _number | st.booleans()
    if kind == "time" or (kind in ("number", "any") and draw(st.booleans())):
        ordered = _number if kind == "number" else values if kind == "time" else draw(st.sampled_from([_text, _number]))
        low, high = draw(st.none() | ordered), draw(ordered)
        return Range(asked, low, high if low is None else draw(st.none() | st.just(high)), draw(st.booleans()), draw(st.booleans()))
    if kind not in ("verdict", "label", "id"):
        values = st.none() | values
    return OneOf(asked, tuple(draw(st.lists(values, min_size=1, max_size=3))))


built_queries = st.recursive(
    _leaf(),
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)), st.builds(Not, inner),
    ),
    max_leaves=6,
).map(lambda expression: Query("", expression))  # fmt: skip
"""What a program may ask beyond that: values that can't be written, as NUL."""
