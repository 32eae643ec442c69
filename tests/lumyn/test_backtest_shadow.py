"""`lumyn backtest --shadow`: the report of what a candidate said live is that of a backtest over the same decisions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import sdk, wiring
from schemas.canonical import decode_trusted, encode
from streams.log import Append
from streams.reading import all_messages
from streams.topics import SHADOW

pytest_plugins = ("inside_plugin",)

PLAIN = POLICY.replace("memory: {}\n", "")
NEW = PLAIN.replace("gte: 0.8", "gte: 0.4").replace("gt: 250", "gt: 400").replace("4.1.0", "9.0.0")


@pytest.fixture
def tried(inside: Inside) -> list[dict[str, Any]]:
    """Decisions while a candidate stands beside them, and one from before; some labelled."""
    inside.write("policy.yml", PLAIN)
    inside.write("new.yml", NEW)
    inside.decide(refund(300, 0.5, "before"))
    inside.run("policy", "shadow", "new.yml", "--why", "w")
    cases = [(a, r) for a in (20, 260, 300, 450) for r in (0.1, 0.5, 0.9)]
    made = [inside.decide(refund(a, r, f"usr_{n % 5}")) for n, (a, r) in enumerate(cases)]
    for number, record in enumerate(made[::2]):
        sdk.label(record["decision_id"], ("failure", "success")[number % 2], summary="seen", wait_s=0)
    return made


def report(inside: Inside, *arguments: object, code: int = 0) -> dict[str, Any]:
    return dict(inside.json("backtest", "--shadow", *arguments, "--json", code=code))


def test_it_is_what_a_backtest_of_the_same_decisions_says(inside: Inside, tried: list[dict[str, Any]]) -> None:
    told = report(inside, "--by", "evidence.chargeback_risk")
    names = ", ".join(f"'{record['decision_id']}'" for record in tried)
    query = f"decision_id IN ({names})"
    want = inside.json(
        "backtest", "--policy", "new.yml", "--query", query, "--by", "evidence.chargeback_risk", "--json"
    )
    mine, theirs = told["candidates"][0], want["candidates"][0]
    assert mine["compared"] == 12 and mine["flips"]["count"] > 2 and mine["outcomes"]
    for name in ("hash", "matrix", "flips", "stricter", "milder", "outcomes", "slices", "other_reasons", "time"):
        assert mine[name] == theirs[name], name
    for name in ("root", "verdicts", "labelled", "policies", "first", "last", "decisions"):
        assert told["range"][name] == want["range"][name], name
    assert mine["coverage"]["labelled"] == theirs["coverage"]["labelled"] == 6
    assert (mine["rules"], mine["causes"], mine["top"]) == ([], [], [])


@pytest.mark.parametrize(
    "part",
    [
        ("--from", "{p}:{a}", "--to", "{p}:{b}"),
        ("--from", "{p}:{b}"),
        ("--query", "amount_usd >= 300 AND subject_id != before"),
        ("--query", "label IN (failure, success)", "--to", "{p}:{b}"),
        ("--from", "{t}"),
    ],
)
def test_a_part_of_the_range_is_that_of_a_backtest(
    inside: Inside, tried: list[dict[str, Any]], part: tuple[str, ...]
) -> None:
    places = Counter(record["log"]["partition"] for record in tried)
    partition = max(places, key=places.__getitem__)
    offsets = sorted(record["log"]["offset"] for record in tried if record["log"]["partition"] == partition)
    names = {"p": partition, "a": offsets[0], "b": offsets[-1], "t": tried[6]["created_at"]}
    told = [text.format(**names) for text in part]
    mine, theirs = report(inside, *told), inside.json("backtest", "--policy", "new.yml", *told, "--json")
    one, other = mine["candidates"][0], theirs["candidates"][0]
    assert 0 < one["compared"] < 12
    for name in ("compared", "matrix", "flips", "outcomes", "slices"):
        assert one[name] == other[name], name


def test_an_empty_part_is_no_pass(inside: Inside, tried: list[dict[str, Any]]) -> None:
    done = inside.run("backtest", "--shadow", "--from", "0:5000", code=2)
    assert "nothing to compare" in done.stderr
    inside.run("backtest", "--shadow", "--from", "7:0", code=2)
    inside.run("backtest", "--shadow", "--query", "nonsense ===", code=2)


def test_it_is_told_in_every_form_and_bars_hold(inside: Inside, tried: list[dict[str, Any]]) -> None:
    text = inside.run("backtest", "--shadow", "--policy", "refunds@9.0.0", "--html", "r.html").stdout
    assert "range: the shadow topic" in text and "old verdict down" in text and "by default" not in text
    assert "Rules</h3>" not in (inside.folder / "r.html").read_text()
    assert "| old" in inside.run("backtest", "--shadow", "--markdown").stdout
    assert report(inside, "--require", "flips <= 1%", code=1)["passed"] is False
    assert report(inside, "--require", "flips <= 100%")["passed"] is True


def test_verdicts_that_can_t_be_believed_are_counted_apart(inside: Inside, tried: list[dict[str, Any]]) -> None:
    before = report(inside)["candidates"][0]
    log = wiring.existing_home().log
    found = [decode_trusted(message.value) for message in all_messages(log, SHADOW)]
    one, two, three = found[0], found[1], found[2]
    wrong: list[dict[str, Any]] = [
        {**one, "decision_id": "01ARZ3NDEKTSV4RRFFQ69G5FA0", "source": {**one["source"], "offset": 10**6}},
        {**one, "decision_id": "01ARZ3NDEKTSV4RRFFQ69G5FA1", "source": {**one["source"], "topic": "x.records"}},
        {**two},  # a second time: the first counts
        {**two, "candidate": {**two["candidate"], "verdict": "DENY"}},
        {**three, "tenant": "other"},
    ]
    log.append([Append(SHADOW, encode(value), b"k", value["source"]["partition"]) for value in wrong])
    after = report(inside, code=2)["candidates"][0]
    assert after["matrix"] == before["matrix"] and after["coverage"]["errors"] == {"record": 2}
    assert after["coverage"]["twice"] == 2


def test_a_verdict_on_a_record_that_was_another_is_no_verdict(inside: Inside, tried: list[dict[str, Any]]) -> None:
    report(inside)
    log = wiring.existing_home().log
    message = next(iter(all_messages(log, SHADOW)))
    changed = {**decode_trusted(message.value), "record_digest": "sha256:" + "0" * 64}
    log._db.execute("UPDATE log_shadow SET value = ? WHERE value = ?", (encode(changed), message.value))  # type: ignore[attr-defined]
    told = report(inside, code=2)["candidates"][0]
    assert told["coverage"]["errors"] == {"record": 1} and told["compared"] == 11


def test_which_candidate_must_be_clear(
    inside: Inside, tried: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("other.yml", NEW.replace("9.0.0", "9.1.0"))
    inside.run("policy", "shadow", "other.yml", "--why", "w")
    inside.decide(refund(300, 0.1))
    assert "several candidates" in inside.refused("backtest", "--shadow", code=2)
    assert report(inside, "--policy", "refunds@9.1.0")["candidates"][0]["compared"] == 1
    assert report(inside, "--policy", "refunds@9.0.0")["candidates"][0]["compared"] == 13
    assert "no candidate `x@1`" in inside.refused("backtest", "--shadow", "--policy", "x@1", code=2)
    inside.refused("backtest", "--shadow", "--limit", 3, code=2)
    monkeypatch.setenv("LUMYN_TENANT", "other")
    assert "no candidate has" in inside.refused("backtest", "--shadow", code=2)
