"""What people do at the console besides labelling: incidents with their actions, publishing, runbooks, game days."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_client import client, csrf_any, key_of, post
from console_world import ALL, CANDIDATE, PAYLOADS, POLICY, World, build, gameday
from starlette.testclient import TestClient

from lumyn import policies
from lumyn.api.homes import guard_for
from lumyn.gamedays import past
from lumyn.incidents.incidents import Changed, Incidents
from lumyn.runbooks.preview import preview, run_command
from lumyn.runbooks.reading import runbook_named
from lumyn.watches import watch_named
from lumyn.wiring import close_homes
from streams.control import ControlState
from streams.policy import load_policy

NEXT = CANDIDATE.replace("4.2.0", "5.0.0").replace("gt: 400", "gt: 500")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    yield build(tmp_path)
    close_homes()


def hidden(text: str, name: str) -> str:
    """A hidden field's value on a page."""
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found, name
    return html.unescape(found[1])


def previewed(browser: TestClient, source: str) -> dict[str, str]:
    """The form under a policy's preview."""
    shown = post(browser, "/policies/preview", source=source)
    assert shown.status_code == 200, shown.text
    return {name: hidden(shown.text, name) for name in ("document", "hash", "against")}


def control_of(world: World) -> ControlState:
    return world.home().agent.control()


# incidents


def test_an_incident_is_contained_closed_and_reopened(fresh: World) -> None:
    browser, incidents = client(fresh), Incidents(fresh.home())
    assert post(browser, "/incidents/INC-1/status", status="contained", why="switch on").status_code == 303
    assert incidents.show("INC-1").status == "contained"
    for why in ("", " \n "):
        answer = post(browser, "/incidents/INC-1/close", why=why)
        assert answer.status_code == 422 and "the reason is empty" in answer.text
    answer = post(browser, "/incidents/INC-1/close", why=f"learnt\nmuch {ALL[:300]}")
    assert answer.headers["location"].endswith("/INC-1?done=closed")
    text = browser.get("/console/incidents/INC-1").text
    assert "Reopen it" in text and "Close it" not in text and "Where it stands" not in text
    assert "learnt\\nmuch" in text, "the reason is told"
    for path, form in (("close", {"why": "again"}), ("status", {"status": "open"})):
        answer = post(browser, f"/incidents/INC-1/{path}", **form)
        assert answer.status_code == 422 and "INC-1 is closed" in answer.text
    assert post(browser, "/incidents/INC-1/status", status="closed").status_code == 422
    assert post(browser, "/incidents/INC-1/reopen", why="it came again").status_code == 303
    assert [event.kind for event in incidents.show("INC-1").events][-3:] == ["status", "closed", "reopened"]
    assert incidents.show("INC-1").events[-1].actor == "oncall"


def test_what_could_not_be_taken_is_kept_in_its_form(fresh: World) -> None:
    text = f"first line\nsecond {PAYLOADS[4]}" + "x" * 4096
    answer = post(client(fresh), "/incidents/INC-1/note", text=text)
    assert answer.status_code == 422 and "more than 4096" in answer.text
    assert "first line\nsecond &lt;/textarea&gt;" in answer.text
    assert "second" not in [note.text for note in Incidents(fresh.home()).show("INC-1").notes]


def test_action_items_are_added_ticked_and_changed(fresh: World) -> None:
    browser, incidents = client(fresh), Incidents(fresh.home())
    given = {"text": f"Lower it {PAYLOADS[0]}", "owner": "mia", "due": "2026-12-31", "target": "from 0.4% to under 0.1%"}
    assert post(browser, "/incidents/INC-1/action", **given, query="label=failure", of="").status_code == 303
    added = incidents.show("INC-1").actions[-1]
    assert (added.id, added.owner, added.state, added.due, added.watch) == ("A2", "mia", "open", "2026-12-31", "inc-1.a2")
    seen = hidden(browser.get("/console/incidents/INC-1").text, "seen")
    assert post(browser, "/incidents/INC-1/action", action="A2", state="done", seen=seen).status_code == 303
    late = post(browser, "/incidents/INC-1/action", action="A2", owner="ben", seen=seen)
    assert late.status_code == 409 and "A2 was changed by oncall meanwhile" in late.text
    other = post(browser, "/incidents/INC-1/action", action="A1", state="doing", seen=seen)
    assert other.status_code == 303, "another item was not changed since"
    assert [(one.owner, one.state) for one in incidents.show("INC-1").actions[1:]] == [("mia", "done")]
    assert "Open A2 again" in browser.get("/console/incidents/INC-1").text
    moved = {"action": "A2", "due": "2099-01-31", "target": "under 3%"}
    assert post(browser, "/incidents/INC-1/action", **moved).status_code == 303
    watch = watch_named(fresh.home(), "inc-1.a2").watch
    assert (watch.target, watch.by, watch.query) == ("rate < 3%", "2099-01-31", "label=failure"), "it follows"
    empty = {"action": "A2", "owner": "", "due": "", "target": ""}
    assert post(browser, "/incidents/INC-1/action", **empty).status_code == 303
    changed = incidents.show("INC-1").actions[-1]
    assert (changed.text, changed.owner, changed.due, changed.target) == (added.text, "", None, None)


@pytest.mark.parametrize(
    "given",
    [
        {"text": ""}, {"text": "x", "due": "soon"}, {"text": "x", "target": "better"}, {"text": "x", "query": "label=failure"},
        {"text": "x", "target": "under 1%", "query": "lable=failure"}, {"text": "x", "state": PAYLOADS[0]},
        {"text": "x", "target": "under 1%", "of": "label=failure"}, {"action": PAYLOADS[0], "text": "x"},
        {"text": "x" * 4097},
    ],
)  # fmt: skip
def test_a_wrong_action_item_changes_nothing(fresh: World, given: dict[str, str]) -> None:
    before = len(Incidents(fresh.home()).show("INC-1").events)
    answer = post(client(fresh), "/incidents/INC-1/action", **given)
    assert answer.status_code == 422 and 'role="alert"' in answer.text
    assert len(Incidents(fresh.home()).show("INC-1").events) == before
    assert post(client(fresh), "/incidents/INC-1/action", action="A9", state="done").status_code == 404


def test_a_change_of_what_was_changed_since_is_refused_by_the_store(fresh: World) -> None:
    incidents = Incidents(fresh.home())
    seen = incidents.show("INC-1").events[-1].seq
    incidents.note("INC-1", "something else")
    incidents.action("INC-1", "A1", seen=seen, state="doing")
    with pytest.raises(Changed):
        incidents.action("INC-1", "A1", seen=seen, state="done")
    incidents.action("INC-1", "A1", state="done")


def test_an_incident_is_opened_from_a_decision_and_from_a_query(fresh: World) -> None:
    browser = client(fresh)
    link = re.search(r'href="(/console/incidents/new\?[^"]+)"', browser.get(f"/console/decisions/{fresh.ids['denied']}").text)
    assert link and fresh.ids["denied"] in browser.get(html.unescape(link[1])).text
    link = re.search(r'href="(/console/incidents/new\?[^"]+)"', browser.get("/console/decisions?q=verdict%3DDENY").text)
    assert link and 'value="verdict=DENY"' in browser.get(html.unescape(link[1])).text
    given = {"title": "Denied", "severity": "sev2", "query": "verdict=DENY", "from": "2026-01-01", "to": "2036-01-01"}
    assert post(browser, "/incidents/open", **given, decision=fresh.ids["denied"]).status_code == 303
    opened = Incidents(fresh.home()).show("INC-2")
    assert opened.decisions == [fresh.ids["denied"]] and opened.query == "verdict = DENY"
    assert opened.start_ms is not None and opened.end_ms is not None and opened.start_ms < opened.end_ms
    for wrong in ({"from": "3:100"}, {"from": "soon"}, {"from": "2036-01-01", "to": "2026-01-01"}, {"query": "verdit=1"}):
        answer = post(browser, "/incidents/open", **{**given, **wrong}, summary=f"a\nb{PAYLOADS[4]}")
        assert answer.status_code == 422 and "a\nb&lt;/textarea&gt;" in answer.text, wrong
    assert post(browser, "/incidents/open", **given, decision="0" * 26).status_code == 404


def test_who_may_label_but_not_look_is_shown_no_page_with_his_mistake(fresh: World) -> None:
    guard = guard_for(fresh.config, dev=False)
    browser = client(fresh, guard, key_of(guard, "label"))
    token = re.search(r'name="csrf" value="([^"]+)"', browser.get("/console/incidents/new").text)
    assert token
    for path, form in (
        ("/incidents/INC-1/close", {"why": ""}), (f"/decisions/{fresh.ids['open']}/label", {"label": "x"}),
        (f"/inbox/{fresh.ids['open']}/resolve", {"verdict": "x"}),
    ):  # fmt: skip
        answer = browser.post(f"/console{path}", data={"csrf": token[1], **form})
        assert answer.status_code == 422, path
        assert "refund" not in answer.text and "usr_" not in answer.text


# publishing


def test_a_policy_is_published_after_its_diff_by_its_hash_and_named_in_the_audit(fresh: World) -> None:
    guard = guard_for(fresh.config, dev=False)
    browser = client(fresh, guard, key_of(guard, "admin"))
    assert post(browser, "/policies/preview", source=NEXT).text.count("gt: 500") >= 1
    form = previewed(browser, NEXT)
    assert base64.b64decode(form["document"]) == NEXT.encode()
    assert form["hash"] == load_policy(NEXT.encode(), name="p").policy_hash
    assert form["hash"] not in control_of(fresh).policies, "a preview publishes nothing"
    assert post(browser, "/policies/publish", **form).status_code == 422, "not confirmed"
    assert form["hash"] not in control_of(fresh).policies
    done = post(browser, "/policies/publish", **form, confirm="yes")
    assert done.status_code == 303 and done.headers["location"].endswith("?done=published")
    kept = control_of(fresh).policies[form["hash"]]
    assert (kept.source, kept.origin, kept.version) == (NEXT, "publish", "5.0.0")
    assert form["hash"] not in control_of(fresh).active.values(), "what decides is another step"
    audit = browser.get("/console/audit").text
    rows = [row for row in audit.split("<tr>") if "5.0.0" in row]
    assert len(rows) == 1 and "key:" in rows[0] and "published" in rows[0]
    again = post(browser, "/policies/publish", **form, confirm="yes")
    assert again.headers["location"].endswith("?done=known")


def test_what_is_published_is_what_was_shown_or_nothing(fresh: World) -> None:
    browser = client(fresh)
    form = previewed(browser, NEXT)
    version = control_of(fresh).version
    other = base64.b64encode(NEXT.replace("gt: 500", "gt: 5000").encode()).decode()
    for wrong in ({"document": other}, {"hash": "sha256:" + "0" * 64}, {"document": "%"}, {"document": ""},
                  {"against": "sha256:" + "0" * 64}, {"document": base64.b64encode(b"\xff").decode()}):  # fmt: skip
        answer = post(browser, "/policies/publish", **{**form, **wrong}, confirm="yes")
        assert answer.status_code in (409, 422), wrong
    assert control_of(fresh).version == version
    policies.activate(fresh.home(), "refunds", "4.2.0", "meanwhile")
    stale = post(browser, "/policies/publish", **form, confirm="yes")
    assert stale.status_code == 409 and "does not decide any more" in stale.text
    assert form["hash"] not in control_of(fresh).policies


def test_a_wrong_policy_is_told_with_its_places_and_comes_back_as_it_was_typed(fresh: World) -> None:
    source = POLICY.replace("verdict: DENY", "verdict: DENNY") + f"\n# {PAYLOADS[4]}\n"
    answer = post(client(fresh), "/policies/preview", source=source)
    assert answer.status_code == 422
    assert "policy.yml:4:" in answer.text and "DENNY" in answer.text
    assert "policy: refunds\nversion: 4.1.0\n" in answer.text and "&lt;/textarea&gt;" in answer.text
    assert post(client(fresh), "/policies/preview", source="").status_code == 422
    assert post(client(fresh), "/policies/preview", source="x" * 70_000).status_code == 413
    assert post(client(fresh), "/policies/preview", source="x" * 250_000).status_code == 413


def test_the_same_version_with_another_content_is_not_published(fresh: World) -> None:
    browser = client(fresh)
    answer = post(browser, "/policies/preview", source=CANDIDATE.replace("gt: 400", "gt: 401"))
    assert answer.status_code == 409 and "give the changed policy a new version" in answer.text
    assert "Publish</button>" not in answer.text
    known = post(browser, "/policies/preview", source=CANDIDATE)
    assert known.status_code == 200 and "It is published already" in known.text and "Publish</button>" not in known.text


def test_a_candidate_of_the_shadow_is_published_from_its_page(fresh: World) -> None:
    browser = client(fresh)
    candidate = next(p for p in control_of(fresh).policies.values() if p.version == "4.3.0")
    assert candidate.origin == "shadow"
    assert f"/policies/{candidate.hash.replace(':', '%3A')}/publish" in browser.get(f"/console/policies/{candidate.hash}").text
    shown = browser.get(f"/console/policies/{candidate.hash}/publish").text
    assert candidate.hash in shown and "R_LIMIT" in shown
    form = {name: hidden(shown, name) for name in ("document", "hash", "against")}
    assert post(browser, "/policies/publish", **form, confirm="yes").status_code == 303
    assert control_of(fresh).policies[candidate.hash].origin == "publish"


def test_publishing_is_for_who_runs_the_installation(fresh: World) -> None:
    guard = guard_for(fresh.config, dev=False)
    form = previewed(client(fresh), NEXT)
    hash_ = next(iter(control_of(fresh).policies))
    for role, tenant in (("admin", "other"), ("label", "default"), ("read", "default")):
        browser = client(fresh, guard, key_of(guard, role, tenant))
        token = csrf_any(browser) or hidden(browser.get("/console/incidents/new").text, "csrf") if role != "read" else (
            hidden(browser.get("/console/live").text, "csrf"))
        for path in ("new", f"{hash_}/publish"):
            assert browser.get(f"/console/policies/{path}").status_code == 403
        for path in ("preview", "publish"):
            data = {**form, "source": NEXT, "confirm": "yes", "csrf": token}
            assert browser.post(f"/console/policies/{path}", data=data).status_code == 403, (role, path)
        assert "Publish" not in browser.get(f"/console/policies/{hash_}").text
    assert form["hash"] not in control_of(fresh).policies


# runbooks and game days


def test_a_runbook_is_shown_with_its_answers_and_runs_nothing(fresh: World) -> None:
    browser = client(fresh)
    before = control_of(fresh).version, len(Incidents(fresh.home()).show("INC-1").events)
    bare = browser.get("/console/runbooks/kill-switch").text
    assert "not answered yet" in bare and "it needs an incident" in bare and "lumyn runbook run" not in bare
    asked = {"scope": "refund", "why": "double $(reboot) refunds", "incident": "1"}
    text = html.unescape(browser.get("/console/runbooks/kill-switch", params=asked).text)
    assert "lumyn kill-switch on --action-type refund --why 'double $(reboot) refunds' --json" in text
    assert "changes something" in text and "it needs an incident" not in text
    command = re.search(r'aria-label="Command">(.*?)</pre>', text, re.S)
    assert command and command[1] == (
        "lumyn runbook run kill-switch --incident INC-1 --answer \"scope=refund\" --answer 'why=double $(reboot) refunds'"
    )
    wrong = browser.get("/console/runbooks/bad-data", params={"how": "nothing", "query": "-x"}).text
    assert "one of relabel, quarantine, rollback" in wrong and "can&#39;t begin with `-`" in wrong
    assert browser.get("/console/runbooks/kill-switch", params={"incident": "INC-9"}).status_code == 404
    assert (control_of(fresh).version, len(Incidents(fresh.home()).show("INC-1").events)) == before


def test_only_known_runbooks_are_read_and_the_home_s_own_by_who_runs_it(fresh: World) -> None:
    browser = client(fresh)
    (fresh.folder / "look.yml").write_text("runbook: look\ntitle: x\nsteps:\n  - {id: a, say: secret}\n")
    for name in ("look", "look.yml", "..%2f..%2flook.yml", str(fresh.folder / "look.yml").replace("/", "%2f"), "nothing"):
        assert browser.get(f"/console/runbooks/{name}").status_code == 404, name
    (fresh.folder / ".lumyn" / "runbooks" / "broken.yml").write_text("runbook: [")
    listed = browser.get("/console/runbooks")
    assert listed.status_code == 200 and "mine" in listed.text and "can't be read" in html.unescape(listed.text)
    assert browser.get("/console/runbooks/broken").status_code == 422
    guard = guard_for(fresh.config, dev=False)
    other = client(fresh, guard, key_of(guard, "read", "other"))
    assert "mine" not in re.findall(r"data-row href=\"/console/runbooks/([\w-]+)", other.get("/console/runbooks").text)
    assert other.get("/console/runbooks/mine").status_code == 404
    assert other.get("/console/runbooks/kill-switch").status_code == 200


def test_what_is_shown_is_what_a_run_would_do(tmp_path: Path) -> None:
    """The preview fills in and leaves out as a run does: by the answers before it, defaults among them."""
    book = runbook_named("bad-data", tmp_path)
    steps = preview(book, {"query": "label=failure", "why": "bad  import"}, {"actor": "a", "tenant": "t"})
    by = {one.step.id: one for one in steps}
    assert by["how"].answer == "quarantine" and not by["preview-quarantine"].left_out
    assert by["quarantine"].text == 'lumyn memory quarantine --query "label=failure" --why "bad import" --apply --json'
    assert all(by[name].left_out for name in ("label", "version", "relabel", "rollback", "undo-quarantine"))
    refused = {one.step.id: one for one in preview(book, {"query": "-x", "label": "failure"}, {})}
    assert refused["query"].wrong and '"<query>"' in refused["found"].text, "a run would not take it"
    assert "<label>" in refused["preview-relabel"].text, "nobody is asked for it"
    command = run_command(book, steps, None)
    assert command is not None and '--answer "how=quarantine"' in command and "label=retracted" not in command
    steps = preview(book, {"query": "label=failure", "why": "x", "how": "rollback"}, {})
    assert run_command(book, steps, None) is None, "no version was said"
    by = {one.step.id: one for one in steps}
    assert "<version>" in by["preview-rollback"].text and not by["version"].left_out


def test_game_days_are_listed_and_shown_to_their_own_tenant(fresh: World) -> None:
    browser = client(fresh)
    good = {**gameday(), "name": "outage", "passed": True, "sound": True, "incident": "INC-1"}
    name = past.save(fresh.home().settings, good)
    listed = browser.get("/console/gamedays").text
    assert listed.index(name) < listed.index(fresh.ids["gameday"]), "the newest first"
    assert "1 of 2" in listed and "outage" in listed
    shown = browser.get(f"/console/gamedays/{fresh.ids['gameday']}").text
    assert "&lt;script&gt;" in shown and "a decision was lost" in shown and "fails" in shown
    assert "a decision was lost" not in browser.get(f"/console/gamedays/{name}").text
    for wrong in ("gameday-0123456789ab", "x", "..%2fx", "gameday-0123456789AB"):
        assert browser.get(f"/console/gamedays/{wrong}").status_code == 404
    guard = guard_for(fresh.config, dev=False)
    other = client(fresh, guard, key_of(guard, "admin", "other"))
    assert name not in other.get("/console/gamedays").text
    assert other.get(f"/console/gamedays/{name}").status_code == 404


def test_a_game_day_s_report_that_an_editor_spoilt_is_named(fresh: World) -> None:
    settings = fresh.home().settings
    name = past.save(settings, {**gameday(), "expectations": [{}]})
    for page in ("/console/gamedays", f"/console/gamedays/{name}"):
        told = client(fresh).get(page)
        assert told.status_code == 503 and f"{name}.json" in told.text
