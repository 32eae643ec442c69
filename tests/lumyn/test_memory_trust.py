"""The trust in a labeller from the command line: held, distrusted, released and undone; what a poisoner says then."""

from __future__ import annotations

import os
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk
from lumyn.wiring import existing_home

pytest_plugins = ("inside_plugin",)

HOLD = ("memory", "quarantine", "--labeller", "import-bot", "--why", "the import is being checked")
RELEASE = ("memory", "release", "--labeller", "import-bot", "--why", "it was right")


def trust(inside: Inside, labeller: str, much: object, *more: object, code: int = 0) -> Any:
    return inside.json("memory", "trust", labeller, much, "--why", "a test", *more, "--json", code=code)


def in_force(inside: Inside) -> dict[str, float]:
    return {one["labeller"]: one["trust"] for one in inside.json("memory", "trust", "--json")["trust"]}


def memory() -> dict[str, tuple[str, bool, int]]:
    points = existing_home().memory.store().points("default")
    return {p.memory_id: (p.meaning, p.contested, p.trust) for p in points}


def labelled(inside: Inside, *labels: str, actor: str = "import-bot") -> list[str]:
    names = [inside.decide(refund(20 + number))["decision_id"] for number in range(len(labels))]
    for name, label in zip(names, labels, strict=True):
        sdk.label(name, label, summary="imported", actor=actor)
    return names


def test_the_worked_example(inside: Inside) -> None:
    """A bad import blocks; its bot is held, goes on importing, and is released when it is mended."""
    good = inside.decide(refund(20))["decision_id"]
    sdk.label(good, "success", summary="seen", actor="ann")
    bad = labelled(inside, "failure", "failure")
    sdk.label(good, "failure", summary="imported", actor="import-bot")
    blocked = inside.decide(refund(20))
    assert blocked["verdict"] == "DENY"

    told = inside.json(*HOLD, "--json")
    assert told["trust"] == [{"labeller": "import-bot", "from": 1.0, "to": 0.0}]
    assert told["changes"] == [
        {"from": "harmful", "to": "not in memory", "count": 2}, {"from": "harmful (contested)", "to": "fine", "count": 1},
    ]  # fmt: skip
    assert [c["new"] for c in told["blast_radius"]["changes"]] == ["ALLOW"]
    assert memory()[good] == ("harmful", True, 100), "only shown"

    job = inside.json(*HOLD, "--apply", "--json")["job"]
    assert memory() == {good: ("fine", False, 100)}
    assert inside.decide(refund(20))["verdict"] == "ALLOW"
    assert in_force(inside) == {"import-bot": 0}
    assert "held" in inside.run("memory", "trust").stdout

    later = inside.decide(refund(20))["decision_id"]
    sdk.label(later, "failure", summary="imported", actor="import-bot")
    assert inside.decide(refund(20))["verdict"] == "ALLOW", "what it says from then on is held, too"
    assert inside.run(*HOLD, "--apply").stderr.count("0 memories would change") == 1, "it is held already"

    inside.run(*RELEASE, "--apply")
    assert set(memory()) == {good, *bad, later} and in_force(inside) == {}
    assert inside.decide(refund(20))["verdict"] == "DENY"
    inside.run("memory", "quarantine", "--undo", job)
    assert in_force(inside) == {}, "the release came later"
    for check in (("memory", "verify"), ("memory", "rebuild"), ("memory", "verify"), ("verify",)):
        inside.run(*check)
    inside.run("export", blocked["decision_id"], "--pack", "--with-memory", "--out", "then.zip")
    inside.run("replay", "then.zip", "--memory", "as-of")


def test_a_poisoner_who_is_held_changes_nothing_whatever_he_says(inside: Inside) -> None:
    """Labels, settlements, retractions, quarantines, restores, and trust in himself or against others."""
    harm = inside.decide(refund(20))["decision_id"]
    fine = inside.decide(refund(200))["decision_id"]
    sdk.label(harm, "failure", actor="ann")
    sdk.label(fine, "success", actor="ann")
    inside.run("memory", "trust", "mallory", 0, "--why", "stolen key", "--apply")
    assert "counts for nothing" not in inside.run("label", inside.decide(refund(1))["decision_id"], "--label", "success").stderr
    os.environ["LUMYN_ACTOR"] = "mallory"
    try:
        heard = inside.run("label", inside.decide(refund(1))["decision_id"], "--label", "success").stderr
    finally:
        os.environ["LUMYN_ACTOR"] = "oncall"
    assert "`mallory` is held" in heard and "counts for nothing" in heard
    before, verdicts = memory(), [inside.decide(refund(amount))["verdict"] for amount in (20, 60, 200)]
    labels = existing_home().labels

    def said(name: str, kind: str, **more: Any) -> Any:
        word = {"event_id": f"{name}{kind}{sorted(more.items())}", "decision_id": name, "tenant": "default",
                "type": kind, "summary": "trust me", "actor": "mallory", **more}  # fmt: skip
        return labels.label([word])[0]  # type: ignore[list-item]

    for name in (harm, fine):
        for word in (("label", "success"), ("label", "failure"), ("settle", "success"), ("label", "retracted"),
                     ("settle", "retracted"), ("settle", "failure")):  # fmt: skip
            assert isinstance(said(name, word[0], label=word[1]), dict), "it is taken, and recorded"
            assert memory() == before
        for kind in ("quarantine", "release"):
            assert isinstance(said(name, kind), dict)
            assert memory() == before
    wiped = {"said": [], "quarantined": False}
    refused = [
        said(harm, "restore", undoes={"after": 0}, restored=wiped, expects=99),
        said("", "trust", labeller="mallory", trust=1),
        said("", "trust", labeller="ann", trust=0),
    ]
    assert all("`mallory` is held" in str(error) for error in refused)
    assert memory() == before
    assert [inside.decide(refund(amount))["verdict"] for amount in (20, 60, 200)] == verdicts
    assert (verdicts[0], verdicts[2]) == ("DENY", "ALLOW")
    inside.run("memory", "verify")
    assert len(sdk.show(harm)["events"]) == 9, "all that he said is on record"


def test_less_trust_weighs_less_in_nearby_and_lets_no_harm_go(inside: Inside) -> None:
    labelled(inside, "success", "success", actor="ann")
    labelled(inside, "failure")
    before = inside.decide(refund(20))
    trust(inside, "import-bot", 0.25, "--apply")
    after = inside.decide(refund(20))
    assert before["verdict"] == after["verdict"] == "DENY"
    near, less = (record["risk_signals"]["nearby"] for record in (before, after))
    assert less["failure_rate"] < near["failure_rate"] and less["n_effective"] == pytest.approx(near["n_effective"] - 0.75)
    assert less["upper"] == near["upper"], "what a gate goes by"
    (hit,) = [hit for hit in after["memory"]["counted"] if hit["role"] == "harmful"]
    assert hit["trust"] == 0.25 and "age_ms" not in hit

    told = inside.json("memory", "explain", after["decision_id"], "--json")
    assert [(term["labeller"], term["trust"], term["harmful"]) for term in told["sum"]].count(("import-bot", 0.25, True)) == 1
    assert sum(term["weight"] for term in told["sum"]) == pytest.approx(less["n_effective"], abs=1e-6)
    assert all(term["weight"] == term["similarity"] * term["trust"] * term["decay"] for term in told["sum"])
    text = inside.run("memory", "explain", after["decision_id"]).stdout
    assert "x trust 0.25 x decay 1 = 0.25" in text and "harm counts in full all the same" in text
    assert "the upper end counts harm in full" in text


def test_below_a_half_what_a_labeller_calls_fine_no_longer_counts(inside: Inside) -> None:
    labelled(inside, *["success"] * 8)
    roles = {}
    for much in (1, 0.5, 0.45):
        trust(inside, "import-bot", much, "--apply")
        roles[much] = {hit["role"] for hit in inside.decide(refund(20))["memory"]["counted"]}
    assert roles == {1: {"fine"}, 0.5: {"fine"}, 0.45: set()}


def test_trust_is_undone_as_a_job_and_a_rollback_takes_it_back_too(inside: Inside) -> None:
    (name,) = labelled(inside, "failure")
    first = trust(inside, "import-bot", 0.5, "--apply")["job"]
    trust(inside, "import-bot", 0.25, "--apply")
    assert memory()[name][2] == 25
    undo = inside.json("memory", "trust", "--undo", first, "--json")["job"]
    assert in_force(inside) == {"import-bot": 0.25}, "what came later stays"
    told = inside.json("memory", "rollback", "--to", 1, "--why", "as it was", "--json")
    assert told["trust"] == [{"labeller": "import-bot", "from": 0.25, "to": 1.0}]
    back = inside.json("memory", "rollback", "--to", 1, "--why", "as it was", "--apply", "--json")["job"]
    assert in_force(inside) == {} and memory()[name][2] == 100
    inside.run("memory", "rollback", "--undo", back)
    assert in_force(inside) == {"import-bot": 0.25}
    inside.run("memory", "trust", "--undo", undo)
    assert in_force(inside) == {"import-bot": 0.25} and memory()[name][2] == 25
    inside.run("memory", "verify")


def test_release_gives_back_the_trust_of_before(inside: Inside) -> None:
    labelled(inside, "failure")
    trust(inside, "import-bot", 0.5, "--apply")
    inside.run(*HOLD, "--apply")
    assert in_force(inside) == {"import-bot": 0}
    inside.run(*RELEASE, "--apply")
    assert in_force(inside) == {"import-bot": 0.5}


def test_of_one_who_is_not_held_release_lets_in_what_was_taken_out_one_by_one(inside: Inside) -> None:
    one, two = labelled(inside, "failure", "failure")
    inside.run("memory", "quarantine", one, two, "--why", "x", "--apply")
    assert memory() == {}
    inside.run(*RELEASE, "--apply")
    assert set(memory()) == {one, two}


def test_it_is_of_the_homes_tenant_alone(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = labelled(inside, "failure")
    monkeypatch.setenv("LUMYN_TENANT", "globex")
    trust(inside, "import-bot", 0, "--apply")
    assert in_force(inside) == {"import-bot": 0}
    monkeypatch.delenv("LUMYN_TENANT")
    assert in_force(inside) == {} and memory()[name] == ("harmful", False, 100)


def test_who_never_said_anything_may_be_held_and_is_named_in_case_he_is_misspelt(inside: Inside) -> None:
    labelled(inside, "failure")
    done = inside.run("memory", "trust", "import-bto", 0, "--why", "x")
    assert "no label of this tenant is by `import-bto` yet; did you mean `import-bot`?" in done.stderr
    assert "trust in import-bto: 1 -> 0" in done.stdout and "0 memories would change; `--apply`" in done.stderr
    assert "note" not in inside.run("memory", "trust", "import-bot", 0, "--why", "x").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import-bot", 0.33, "--why", "x"), "from 0 to 1 in steps of 0.05, not `0.33`"),
        (("import-bot", 1.05, "--why", "x"), "from 0 to 1"),
        (("import-bot", "nan", "--why", "x"), "from 0 to 1"),
        (("import-bot", "much", "--why", "x"), "valid number"),
        (("import-bot", 0.5), "say whom, how much and why"),
        (("import-bot", "--why", "x"), "say whom, how much and why"),
        (("import-bot", 0.5, "--why", " "), "`--why` is empty"),
        (("--why", "x"), "say whom and how much"),
        (("--apply",), "say whom and how much"),
        (("--undo", "trust-000000000000"), "no label of this tenant is of a job"),
    ],
)
def test_what_is_wrong_is_said(inside: Inside, arguments: tuple[object, ...], said: str) -> None:
    labelled(inside, "failure")
    assert said in inside.run("memory", "trust", *arguments, code=2).stderr


def test_a_memory_of_an_earlier_layout_says_how_to_make_it_anew(inside: Inside) -> None:
    import sqlite3

    from lumyn import wiring

    labelled(inside, "failure")
    inside.run("memory", "stats")
    wiring.close_homes()
    with sqlite3.connect(inside.home / "memory.db") as database:
        database.execute("UPDATE meta SET value = '1' WHERE key = 'layout'")
        database.execute("DROP TABLE trust")
    done = inside.run("memory", "stats", code=4)
    assert "layout `1`, not `2`" in done.stderr and "lumyn memory rebuild" in done.stderr
    inside.run("memory", "rebuild")
    inside.run("memory", "stats")
