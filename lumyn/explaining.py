"""Explaining a decision of a home or of a pack, and what would have altered its verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumyn.config import LumynConfig, resolve
from lumyn.home import Home
from lumyn.lookup import sound_record
from lumyn.memory_views import recall_then
from lumyn.replaying import check_pack, opened_pack
from lumyn.wiring import existing_home
from memory_service.recall import Asked, Recall
from schemas.errors import UsageError
from schemas.verdict import VERDICTS, Verdict
from streams.as_of import was_recalled
from streams.counterfactual.search import MOST_PAIRS, MOST_SINGLES, counterfactuals
from streams.counterfactual.told import as_dict
from streams.erasures import erasures
from streams.integrity import recorded_policy, require
from streams.packs import read_pack
from streams.policy import CompiledPolicy

MEMORIES = ("recorded", "as-of")


@dataclass(frozen=True, slots=True)
class Explained:
    """A sound record, opened where that can be, and what it takes to decide it again."""

    record: Mapping[str, Any]
    policy: Callable[[], CompiledPolicy]
    home: Home | None


def to_explain(named: str, *, trust_signer: bool = False, config: LumynConfig | None = None) -> Explained:
    """A decision by its id, or the one in a pack (`*.zip`), checked. Raises `NotFound`, `BadPack`, `IntegrityError`."""
    if named.endswith(".zip"):
        path = Path(named)
        pack = read_pack(path)
        require(check_pack(pack, trust_signer=trust_signer, settings_home=resolve(config).home), where=named)
        return Explained(opened_pack(pack), lambda: recorded_policy(pack.record, pack.policy_source), None)
    return in_home(existing_home(config), named)


def in_home(home: Home, named: str) -> Explained:
    """A decision of a home's tenant. Raises `NotFound`, `IntegrityError`."""
    _, record = sound_record(home, named)
    return Explained(record, lambda: home.agent.control().compiled(record["policy"]["hash"]), home)


def counterfactual(
    what: Explained,
    *,
    wanted: str | None = None,
    limit: int = 5,
    memory: str | None = None,
    most_singles: int = MOST_SINGLES,
    most_pairs: int = MOST_PAIRS,
) -> dict[str, Any]:
    """What would have altered the verdict, as JSON. `memory`: `as-of` (default where the home is), `recorded`.

    `most_singles` and `most_pairs` bound how many changes are tried, and pairs of them.
    Raises `UsageError`, `Erased`, `KeyMissing`, `IntegrityError`.
    """
    if memory not in (None, *MEMORIES):
        raise UsageError(f"unknown memory `{memory}`", help=f"one of {', '.join(MEMORIES)}")
    if memory == "as-of" and what.home is None:
        raise UsageError("a pack brings no memory to ask", help="leave `--memory` out, or name a decision of this home")
    recalls: Callable[[Asked], Recall] | None = None
    if what.home is not None and memory != "recorded" and was_recalled(what.record):
        recalls = recall_then(what.home, what.record)[1]
    found = counterfactuals(
        what.record, what.policy(), wanted=_verdict(wanted), limit=limit, recalls=recalls, most_singles=most_singles,
        most_pairs=most_pairs,
    )  # fmt: skip
    told = as_dict(found, what.record["decision_id"], memory_asked=recalls is not None)
    if recalls is not None and what.home is not None and erasures(what.home.log).touched(what.record):
        note = "memories that it could meet are erased now: what memory says when it is asked again is not exact"
        told["notes"].append(note)
        told["text"].append(f"note: {note}")
    return told


def _verdict(text: str | None) -> Verdict | None:
    if text is None:
        return None
    for verdict in VERDICTS:
        if verdict == text.upper():
            return verdict
    raise UsageError(f"unknown verdict `{text[:32]}`", help=f"one of {', '.join(VERDICTS)}")
