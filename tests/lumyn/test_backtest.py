"""`lumyn backtest` as a user runs it: figures that replay agrees with, causes, bars, samples, and input that is bad."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import backtesting, sdk
from lumyn.wiring import close_homes, existing_home
from schemas.canonical import decode_trusted
from streams import control
from streams.reading import all_messages

pytest_plugins = ("inside_plugin",)

PLAIN = POLICY.replace("memory: {}\n", "")
MILD = PLAIN.replace("gte: 0.8", "gte: 0.95").replace("gt: 250", "gt: 400")
AMOUNTS = (20, 90, 180, 260, 300, 390, 450, 700)
RISKS = (0.1, 0.5, 0.85, 0.9, 0.99)


@pytest.fixture
def decided(inside: Inside) -> list[dict[str, Any]]:
    """Forty decisions without memory, of eight subjects; some labelled."""
    inside.write("policy.yml", PLAIN)
    inside.write("mild.yml", MILD)
    requests = [
        refund(amount, risk, f"usr_{number % 8}", provenance={"model": f"m{number % 2}"})
        for number, (amount, risk) in enumerate((a, r) for a in AMOUNTS for r in RISKS)
    ]
    records = [dict(record) for record in sdk.decide_many(requests) if isinstance(record, dict)]
    for record in records:
        risk = record["request"]["evidence"]["chargeback_risk"]
        if risk in (0.9, 0.1):
            right = (record["verdict"] == "ALLOW") == (risk == 0.1)
            sdk.label(record["decision_id"], "success" if right else "failure", summary="seen", wait_s=0)
    return records


def report(inside: Inside, *arguments: object, code: int = 0) -> dict[str, Any]:
    return dict(inside.json("backtest", *arguments, "--json", code=code))


def cells(candidate: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(cell["old"], cell["new"]): cell["seen"] for cell in candidate["matrix"]}


def test_the_matrix_is_what_replaying_each_decision_gives(inside: Inside, decided: list[dict[str, Any]]) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    for record in decided:
        path = inside.folder / "one.zip"
        sdk.export(record["decision_id"], path)
        expected[record["verdict"], sdk.replay(path, policy="mild.yml", memory="recorded")["verdict"]] += 1
    found = report(inside, "--policy", "mild.yml")["candidates"][0]
    assert cells(found) == expected
    flips = sum(number for (old, new), number in expected.items() if old != new)
    assert found["flips"]["count"] == flips > 0
    assert found["flips"]["lower"] < flips / 40 < found["flips"]["upper"]
    assert found["causes"] == [{"cause": "policy", "flips": flips, "other_reasons": found["other_reasons"]}]


def test_candidates_are_evaluated_together_as_each_alone(inside: Inside, decided: list[dict[str, Any]]) -> None:
    inside.write("strict.yml", PLAIN.replace("gte: 0.8", "gte: 0.4"))
    names = ("mild.yml", "strict.yml", "policy.yml")
    together = report(inside, *(part for name in names for part in ("--policy", name)))["candidates"]
    assert together == [report(inside, "--policy", name)["candidates"][0] for name in names]
    assert together[2]["flips"]["count"] == 0


def test_rules_are_counted_before_and_after_with_precision_and_recall(inside: Inside, decided: list[Any]) -> None:
    found = report(inside, "--policy", "mild.yml")["candidates"][0]
    block = next(rule for rule in found["rules"] if rule["rule"] == "R_FRAUD_BLOCK")
    # 0.85, 0.9 and 0.99 blocked before, 0.99 alone blocks now; of the labelled, 0.9 is harmful and 0.1 fine.
    assert (block["fired_before"], block["fired_after"]) == (24, 8)
    assert block["precision_before"]["rate"] == 1 and block["recall_before"]["rate"] == 1
    assert block["precision_after"]["rate"] is None and block["recall_after"]["rate"] == 0
    assert block["flips"] == 16


def test_known_outcomes_are_compared_on_the_same_decisions(inside: Inside, decided: list[Any]) -> None:
    outcomes = report(inside, "--policy", "mild.yml")["candidates"][0]["outcomes"]
    caught = outcomes["figures"]["failures_caught"]  # a bare label on an ESCALATE tells nothing
    assert (caught["before"]["seen"], caught["before"]["seen_of"]) == (8, 8)
    assert caught["after"]["seen"] < 8
    paired = outcomes["paired"]
    assert paired["recorded_only"] == 8 - caught["after"]["seen"]
    assert sum(paired[name] for name in ("both_right", "recorded_only", "candidate_only", "both_wrong")) == 8 + 3
    allowed = outcomes["wrong_among_allowed"]["after"]
    assert allowed["lower"] == allowed["wrong"] / allowed["allowed"] and allowed["upper"] > allowed["lower"]


def test_flips_that_matter_most_come_with_both_traces(inside: Inside, decided: list[Any]) -> None:
    top = report(inside, "--policy", "mild.yml")["candidates"][0]["top"]
    assert len(top) == 10
    wrong = [flip["meaning"] == "harmful" and flip["new"] == "ALLOW" for flip in top]
    assert wrong == sorted(wrong, reverse=True) and any(wrong)
    amounts = [flip["amount"] for flip, bad in zip(top, wrong, strict=True) if not bad]
    assert amounts == sorted(amounts, reverse=True)
    first = top[0]
    assert [rule["id"] for rule in first["old_trace"]] != [rule["id"] for rule in first["new_trace"]]
    assert first["old_trace"][0]["facts"][0]["fact"] == "evidence.chargeback_risk"


@pytest.mark.parametrize(
    ("bar", "code"),
    [
        ("flips.ALLOW_to_DENY <= 0.5%", 0),
        ("flips <= 2", 1),
        ("failures_caught >= baseline", 1),
        ("failures_caught >= baseline - 99%", 0),
        ("fine_allowed >= baseline", 0),
        ("upper(flips) <= 30%", 1),
    ],
)
def test_bars_decide_the_exit_code(inside: Inside, decided: list[Any], bar: str, code: int) -> None:
    found = report(inside, "--policy", "mild.yml", "--require", bar, code=code)
    assert found["candidates"][0]["bars"][0]["holds"] is (code == 0)
    assert found["require"]["hash"].startswith("sha256:")


def test_a_bar_applies_to_every_candidate(inside: Inside, decided: list[Any]) -> None:
    found = report(
        inside, "--policy", "policy.yml", "--policy", "mild.yml", "--require", "flips <= 0", code=1
    )
    assert [one["bars"][0]["holds"] for one in found["candidates"]] == [True, False]


def test_ranges_by_position_time_query_file_and_pack_add_up(inside: Inside, decided: list[Any]) -> None:
    whole = report(inside, "--policy", "mild.yml")
    log = existing_home().log
    parts = Counter[tuple[str, str]]()
    for partition in range(log.partitions("requests")):
        end = log.end("requests", partition)
        for low, high in ((0, end // 2), (end // 2, end)):
            if high > low:
                positions = ("--from", f"{partition}:{low:03d}", "--to", f"{partition}:{high:03d}")
                parts.update(cells(report(inside, "--policy", "mild.yml", *positions)["candidates"][0]))
    assert parts == cells(whole["candidates"][0])
    asked = report(inside, "--policy", "mild.yml", "--query", "verdict=DENY")
    assert asked["range"]["decisions"] == sum(n for (old, _), n in parts.items() if old == "DENY")
    inside.run("export", "--limit", 100, "--out", "all.jsonl")
    of_file = report(inside, "all.jsonl", "--policy", "mild.yml")
    assert cells(of_file["candidates"][0]) == parts
    inside.run("export", "--query", "amount_usd = 20")
    packs = sorted(path.name for path in inside.folder.glob("decision_*.zip"))
    of_packs = report(inside, *packs, "--policy", "mild.yml")
    assert of_packs["range"]["decisions"] == len(packs) == len(RISKS)
    since = decided[0]["created_at"]
    assert report(inside, "--policy", "mild.yml", "--from", since)["range"]["root"] == whole["range"]["root"]


def test_a_limit_takes_the_latest(inside: Inside, decided: list[Any]) -> None:
    found = report(inside, "--policy", "mild.yml", "--limit", 7)
    latest = sorted(record["decision_id"] for record in decided)[-7:]
    ids = {flip["decision_id"] for flip in found["candidates"][0]["top"]}
    assert found["range"]["decisions"] == 7 and ids <= set(latest)


def test_a_sample_is_weighted_back_to_the_whole(inside: Inside, decided: list[Any]) -> None:
    found = report(inside, "--policy", "mild.yml", "--sample", 12, "--seed", 3)
    recorded = Counter(record["verdict"] for record in decided)
    assert found["range"]["sample"]["strata"] == recorded
    candidate = found["candidates"][0]
    assert candidate["coverage"]["compared"] == 12
    for verdict, count in recorded.items():
        rows = [cell for cell in candidate["matrix"] if cell["old"] == verdict]
        assert abs(sum(cell["count"] for cell in rows) - count) < 1e-6
    assert abs(candidate["flips"]["of"] - 40) < 1e-6 and candidate["flips"]["seen_of"] == 12
    assert report(inside, "--policy", "mild.yml", "--sample", 12, "--seed", 3) == found


def test_the_range_may_be_cut_into_processes_or_not(
    inside: Inside, decided: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report(inside, "--policy", "mild.yml")
    monkeypatch.setattr("lumyn.backtest_plan._EACH", 7)
    assert report(inside, "--policy", "mild.yml") == whole
    monkeypatch.setattr(backtesting, "_WORTH_PROCESSES", 1)
    assert report(inside, "--policy", "mild.yml") == whole


def test_broken_off_it_is_taken_up_where_it_was(
    inside: Inside, decided: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report(inside, "--policy", "mild.yml", "--policy", "policy.yml")
    monkeypatch.setattr("lumyn.backtest_plan._EACH", 7)
    real, seen = backtesting.parts, []

    def broken(*arguments: Any) -> Any:
        for number, one in enumerate(real(*arguments)):
            if number == 2 and not seen:
                seen.append(number)
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(backtesting, "parts", broken)
    done = inside.run("backtest", "--policy", "mild.yml", "--policy", "policy.yml", code=130)
    job = next(word for word in done.stderr.split() if word.startswith("backtest-")).rstrip("`")
    assert f"lumyn backtest --resume {job}" in done.stderr
    inside.write("mild.yml", "rules: [")  # what was asked then counts
    sdk.decide(refund(100, 0.99, "somebody"))  # nor does what came meanwhile
    inside.refused("backtest", "--resume", job, "--policy", "policy.yml", code=2)
    assert report(inside, "--resume", job) == whole
    assert "no backtest" in inside.refused("backtest", "--resume", job, code=2)
    assert "is no backtest" in inside.refused("backtest", "--resume", "../../etc/passwd", code=2)


def tamper(inside: Inside, change: Any) -> str:
    """Change one record in the log; returns its id."""
    record = decode_trusted(next(all_messages(existing_home().log, "records")).value)
    close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        (value,) = db.execute("SELECT value FROM log_records WHERE key = ?", (record["decision_id"].encode(),)).fetchone()
        db.execute(
            "UPDATE log_records SET value = ? WHERE key = ?", (change(value), record["decision_id"].encode())
        )
    return str(record["decision_id"])


def test_a_record_whose_digest_fails_is_named_and_never_a_match(inside: Inside, decided: list[Any]) -> None:
    before = report(inside, "--policy", "policy.yml")
    tamper(inside, lambda value: value.replace(b'"verdict":"ALLOW"}', b'"verdict":"DENY"}'))
    done = inside.run("backtest", "--policy", "policy.yml", "--json", code=3)
    found = json.loads(done.stdout)
    assert found["range"]["refused"] == {"integrity": 1}
    assert found["candidates"][0]["coverage"]["compared"] == 39
    assert "record_digest failed" in done.stderr and "records/" in done.stderr
    assert found["range"]["root"] != before["range"]["root"]


def test_a_record_of_another_schema_is_told_and_counted(inside: Inside, decided: list[Any]) -> None:
    tamper(inside, lambda value: b'{"schema":"lumyn.record/9"}')
    found = report(inside, "--policy", "policy.yml", code=2)
    assert found["range"]["refused"] == {"schema": 1}
    assert found["candidates"][0]["flips"]["count"] == 0


def test_a_record_that_is_gone_is_told(inside: Inside, decided: list[Any]) -> None:
    sdk.decide({**refund(20), "request_id": "r-1"})
    sdk.decide({**refund(20), "request_id": "r-1"})  # a retry, and no decision
    found = report(inside, "--policy", "policy.yml")
    assert found["range"]["gaps"]["gone"] == 0 and found["range"]["gaps"]["by_outcome"] == {"duplicate": 1}
    close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        db.execute("DELETE FROM log_records WHERE key = ?", (decided[3]["decision_id"].encode(),))
    done = inside.run("backtest", "--policy", "policy.yml", "--json")
    assert json.loads(done.stdout)["range"]["gaps"]["by_outcome"] == {"decided": 1, "duplicate": 1}
    assert "1 decisions of the range have no record any more" in done.stderr


def test_the_same_policy_that_decides_otherwise_is_exit_3(inside: Inside, decided: list[Any]) -> None:
    """A record made right again to the last digest, but not what its inputs give."""
    from schemas.canonical import encode
    from schemas.record import record_digest

    def forge(value: bytes) -> bytes:
        record = decode_trusted(value)
        record["verdict"], record["reason_codes"] = "DENY", ["CHARGEBACK_RISK_BLOCK"]
        record["record_digest"] = record_digest(record)
        return encode(record)

    name = tamper(inside, forge)
    for policy in ("policy.yml", "mild.yml"):
        done = inside.run("backtest", "--policy", policy, "--json", code=3)
        candidate = json.loads(done.stdout)["candidates"][0]
        assert {one["cause"] for one in candidate["causes"]} >= {"unexplained"}
        assert name in done.stderr and "come out otherwise though" in done.stderr


def test_another_engines_decision_is_laid_to_the_engine(inside: Inside, decided: list[Any]) -> None:
    from schemas.canonical import encode
    from schemas.record import record_digest

    def older(value: bytes) -> bytes:
        record = decode_trusted(value)
        record["engine"], record["verdict"] = "lumyn-engine/0", "ABSTAIN"
        record["record_digest"] = record_digest(record)
        return encode(record)

    tamper(inside, older)
    found = report(inside, "--policy", "policy.yml")
    assert found["candidates"][0]["causes"] == [{"cause": "engine", "flips": 1, "other_reasons": 0}]
    assert found["range"]["engines"] == {"lumyn-engine/0": 1, "lumyn-engine/1": 39}


def test_what_a_kill_switch_stopped_no_policy_lets_through(inside: Inside) -> None:
    inside.write("policy.yml", PLAIN)
    inside.write("all.yml", "policy: refunds\nrules: [{id: R_ALL, stage: ALLOW_PATHS}]\n")
    sdk.decide(refund(20))
    inside.run("kill-switch", "on", "--everything", "--why", "incident")
    assert sdk.decide(refund(30))["reason_codes"] == ["KILL_SWITCH"]
    found = report(inside, "--policy", "all.yml")["candidates"][0]
    assert cells(found) == {("ALLOW", "ALLOW"): 1, ("DENY", "DENY"): 1}


def test_much_that_is_kept_is_let_go_of_and_nothing_changes(
    inside: Inside, decided: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report(inside, "--policy", "mild.yml")
    monkeypatch.setattr("lumyn.backtest_plan._EACH", 3)
    for module in ("panel", "evaluate"):
        monkeypatch.setattr(f"streams.backtest.{module}.MOST_KEPT", 1)
    assert report(inside, "--policy", "mild.yml") == whole


def test_errors_in_candidates_are_all_told_before_anything_is_read(inside: Inside) -> None:
    inside.write("a.yml", "rules: [{id: X}]\nnonsense: 1\n")
    inside.write("b.yml", "rules: [{id: Y, if: {a: {gtx: 1}}, then: {verdict: DENY}}]\n")
    sdk.decide(refund(20))
    done = inside.run("backtest", "--policy", "a.yml", "--policy", "b.yml", code=2)
    assert "a.yml:2:1" in done.stderr and "b.yml:1:" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "2031-01-01"), "no decision lies in this range"),
        (("--query", "amount_usd > 99999"), "nothing to compare"),
        (("--from", "99:1"), "there is no partition 99"),
        (("--from", "3:5", "--to", "3:2"), "must be before"),
        (("--query", "verdict=MAYBE"), "verdict"),
        (("--limit", "3", "--sample", "3"), "not both"),
        (("--by", "nothing"), "can't be told apart by `nothing`"),
        (("--memory", "yesterday"), "unknown memory `yesterday`"),
        (("--require", "flips <= 0.5"), "no count"),
        (("--markdown", "--json"), "not both"),
        (("gone.jsonl",), "no such data set"),
        (("all.jsonl", "--from", "3:1"), "are for the log"),
        (("one.jsonl", "two.jsonl"), "one data set"),
        (("--resume", "x"), "is no backtest"),
        (("--html", "."), "a folder"),
    ],
)
def test_what_can_not_be_done_is_refused(
    inside: Inside, decided: list[Any], arguments: tuple[str, ...], said: str
) -> None:
    policy = () if "--resume" in arguments else ("--policy", "mild.yml")
    done = inside.run("backtest", *policy, *arguments, code=2)
    assert done.stdout == "" and said in done.stderr


def test_bars_on_outcomes_need_outcomes(inside: Inside, decided: list[Any]) -> None:
    asked = ("--policy", "mild.yml", "--query", "label=none", "--require", "failures_caught >= baseline")
    done = inside.run("backtest", *asked, code=2)
    assert done.stdout == "" and "can't be judged" in done.stderr


def test_without_any_outcome_such_a_bar_is_refused_before_a_record_is_read(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("mild.yml", MILD)
    sdk.decide(refund(20))

    def never(*_: Any) -> Any:
        raise AssertionError("a record was read")

    monkeypatch.setattr("streams.backtest.sources.LogSource.read", never)
    done = inside.refused("backtest", "--policy", "mild.yml", "--require", "accuracy >= 50%", code=2)
    assert "can't be judged" in done


def test_requests_for_another_policy_are_not_compared(inside: Inside, decided: list[Any]) -> None:
    sdk.decide({**refund(20), "policy": "refunds"})
    inside.write("other.yml", MILD.replace("policy: refunds", "policy: payments"))
    found = report(inside, "--policy", "other.yml", "--policy", "mild.yml")
    assert [one["coverage"]["out_of_policy"] for one in found["candidates"]] == [1, 0]
    assert [one["coverage"]["compared"] for one in found["candidates"]] == [40, 41]
    asked = ("--policy", "other.yml", "--limit", "1")
    assert "ask for another policy by name" in inside.refused("backtest", *asked, code=2)


def test_without_a_candidate_the_active_policy_is_asked(inside: Inside, decided: list[Any]) -> None:
    inside.write("active.yml", MILD.replace("4.1.0", "5.0.0"))
    inside.run("policy", "publish", "active.yml")
    inside.run("policy", "activate", "refunds@5.0.0")
    assert report(inside)["candidates"][0]["version"] == "5.0.0"


def test_other_tenants_decisions_are_never_seen(inside: Inside, decided: list[Any]) -> None:
    sdk.decide({**refund(499, 0.9), "tenant": "globex"})
    found = report(inside, "--policy", "mild.yml")
    assert found["range"]["decisions"] == 40 and found["range"]["gaps"]["by_outcome"] == {}
    assert "globex" not in json.dumps(found)


def test_the_report_is_told_in_text_and_markdown(inside: Inside, decided: list[Any]) -> None:
    text = inside.run("backtest", "--policy", "mild.yml", "--require", "flips <= 99%").stdout
    for part in ("old \\ new", "R_FRAUD_BLOCK", "by amount", "flips that matter most", "root: sha256:", "bars: sha256:"):
        assert part in text
    markdown = inside.run("backtest", "--policy", "mild.yml", "--markdown").stdout
    assert "| R\\_FRAUD\\_BLOCK |" in markdown and "\n### rules\n" in markdown


def test_a_report_that_can_not_be_written_is_not_there_by_half(inside: Inside, decided: list[Any]) -> None:
    inside.write("report.html", "the one before")
    import lumyn.exporting as exporting

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting.os, "fsync", full)
        done = inside.run("backtest", "--policy", "mild.yml", "--html", "report.html", code=4)
    assert "no space left" in done.stderr.lower()
    assert (inside.folder / "report.html").read_text() == "the one before"
    assert not list(Path(inside.folder).glob(".report.html*"))


def test_a_candidate_is_compiled_once_however_many_steps_ask_for_it(
    inside: Inside, decided: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, real = [], control.load_policy

    def counted(source: bytes, *, name: str) -> Any:
        loaded.append(name)
        return real(source, name=name)

    monkeypatch.setattr(control, "load_policy", counted)
    inside.write("once.yml", (inside.folder / "mild.yml").read_text() + "# asked by this test alone\n")
    first = report(inside, "--policy", "once.yml")
    assert loaded.count("once.yml") == 1
    inside.write("once.yml", (inside.folder / "policy.yml").read_text() + "# another document under the same name\n")
    assert report(inside, "--policy", "once.yml") != first
