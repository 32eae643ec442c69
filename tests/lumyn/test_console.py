"""The console over HTTP: who may see and do what, forms that are not its own, tenants, sessions, and every page's head."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from console_client import client, csrf_any, key_of, post
from console_world import ALL, PAYLOADS, World, build, refund

from lumyn import sdk
from lumyn.access.guard import Guard
from lumyn.access.principal import roles_of
from lumyn.api.homes import guard_for
from lumyn.console import render
from lumyn.console.app import pages
from lumyn.console.page import MAX_FORM_BYTES
from lumyn.console.visit import COOKIE, IDLE_S, SESSION_S, Visits
from lumyn.console.watches import stands
from lumyn.watches.check import check
from lumyn.watches.store import save_watch
from lumyn.watches.watch import make_watch
from lumyn.wiring import close_homes
from schemas.errors import RateLimited

ROLES = ("read", "label", "admin", "decide")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield build(tmp_path_factory.mktemp("console"))
    close_homes()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    yield build(tmp_path)
    close_homes()


@pytest.fixture
def guard(world: World) -> Guard:
    return guard_for(world.config, dev=False)


def path_of(page: Any, world: World) -> str:
    """An address that fits a page of the table."""
    policy = next(iter(world.home().agent.control().policies))
    given = {
        "decision_id": world.ids["open"], "hash": policy, "name": "INC-1", "switch_id": "x", "book": "kill-switch",
        "gameday": world.ids["gameday"],
    }  # fmt: skip
    return re.sub(r"\{(\w+)\}", lambda found: given[found[1]], page.path)


def test_every_page_asks_who_it_is(world: World, guard: Guard) -> None:
    browser = client(world, guard)
    for page in pages():
        answer = browser.request(page.method, f"/console{path_of(page, world)}", data={"x": "y"} if page.method == "POST" else None)
        assert answer.status_code == 303, page.path
        assert answer.headers["location"] == "/console/login"
        assert "default" not in answer.text


@pytest.mark.parametrize("role", ROLES)
def test_every_page_asks_for_its_role(world: World, guard: Guard, role: str) -> None:
    browser = client(world, guard, key_of(guard, role))
    token = csrf_any(browser)
    for page in pages():
        if page.path == "/live/stream":
            continue  # it goes on; the browser's tests read it
        data = {"csrf": token} if page.method == "POST" else None
        answer = browser.request(page.method, f"/console{path_of(page, world)}", data=data)
        may = role == page.role or role == "admin"
        if role == "decide" or (page.method == "POST" and not token):
            assert answer.status_code == 403, (page.path, answer.status_code)
        elif may:
            assert answer.status_code != 403, (page.path, answer.text)
            assert answer.status_code < 500, (page.path, answer.text)
        elif page.role == "read" and role == "label":
            assert answer.status_code == 403
        else:
            assert answer.status_code == 403, (page.path, answer.status_code)


def test_buttons_are_there_for_whom_they_work(world: World, guard: Guard) -> None:
    reader, admin = (client(world, guard, key_of(guard, role)) for role in ("read", "admin"))
    shown = f"/console/decisions/{world.ids['open']}"
    assert "Label</button>" in admin.get(shown).text and "Label</button>" not in reader.get(shown).text
    assert "Put on</button>" in admin.get("/console/switches").text
    assert "Put on</button>" not in reader.get("/console/switches").text
    assert "Resolve</button>" not in reader.get(f"/console/inbox/{world.ids['open']}").text


def test_a_form_of_no_page_of_ours_changes_nothing(world: World) -> None:
    browser = client(world)
    changes = [page for page in pages() if page.method == "POST"]
    assert len(changes) >= 15
    before = world.home().agent.control().version, world.home().events(world.ids["open"])
    for page in changes:
        for token in (None, "", "x", "ü"):
            data = {} if token is None else {"csrf": token}
            answer = browser.post(f"/console{path_of(page, world)}", data={**data, "confirm": "yes", "why": "x"})
            assert answer.status_code == 403, page.path
    token = csrf_any(browser)
    for headers in (
        {"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"}, {"host": "evil.example:8700"},
    ):  # fmt: skip
        answer = browser.post("/console/switches/on", data={"csrf": token, "confirm": "yes", "why": "x", "everything": "yes"}, headers=headers)
        assert answer.status_code == 403, headers
    assert (world.home().agent.control().version, world.home().events(world.ids["open"])) == before


def test_without_keys_only_loopback_s_names_are_served(world: World) -> None:
    browser = client(world)
    for host in ("127.0.0.1:8700", "localhost", "localhost:1", "[::1]:8700", "127.0.0.2"):
        assert browser.get("/console/live", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:8700", "127.0.0.1.evil.example", "", "10.0.0.1", "localhost.evil", "[::2]"):
        answer = browser.get("/console/live", headers={"host": host})
        assert answer.status_code in (400, 403), host
        assert "refund" not in answer.text


def test_another_tenant_sees_nothing_of_it(world: World, guard: Guard) -> None:
    """Every page with the addresses of the one tenant's things, asked for by the other's admin."""
    browser = client(world, guard, key_of(guard, "admin", "other"))
    marks = [*world.ids.values(), "usr_1", "usr_3"]
    for path in world.pages():
        answer = browser.get(f"/console{path}")
        shared = path.startswith(("/policies", "/switches"))
        own = [mark for mark in marks if mark in answer.text and mark not in path]
        assert not own, (path, own)
        named = any(name in path for name in (*world.ids.values(), "INC-1", "/watches/denied", "nothing", "/mine"))
        if named and "near=" not in path and "/incidents/new" not in path:
            assert answer.status_code == 404, path
        elif not shared:
            assert answer.status_code in (200, 422), path
    token = csrf_any(browser)
    before = len(world.home().events(world.ids["open"]))
    for page in pages():
        if page.method == "POST" and "{decision_id}" in page.path:
            form = {"csrf": token, "label": "failure", "verdict": "DENY", "reason": "x", "to": "me"}
            assert browser.post(f"/console{path_of(page, world)}", data=form).status_code == 404, page.path
    link = {"csrf": token, "incident": "INC-1", "decision": world.ids["open"]}
    assert browser.post("/console/incidents/link", data=link).status_code in (400, 404)
    assert len(world.home().events(world.ids["open"])) == before


def test_what_all_tenants_share_is_changed_by_who_runs_it(world: World, guard: Guard) -> None:
    browser = client(world, guard, key_of(guard, "admin", "other"))
    control = world.home().agent.control()
    form = {"csrf": csrf_any(browser), "confirm": "yes", "why": "x", "everything": "yes"}
    for path in (f"/policies/{next(iter(control.policies))}/activate", "/policies/rollback", "/switches/on",
                 f"/switches/{control.switches[0].switch_id}/off"):  # fmt: skip
        assert browser.post(f"/console{path}", data={**form, "name": "refunds"}).status_code == 403, path
    assert browser.post("/console/switches/on", data={**form, "tenant": "default"}).status_code == 403
    assert world.home().agent.control().version == control.version
    unsaid = {name: value for name, value in form.items() if name != "everything"}
    for data in ({**unsaid, "tenant": "other"}, unsaid, {**form, "tenant": "other", "policy": "p"}):
        assert "nothing was stopped" in browser.post("/console/switches/on", data=data).text
    assert world.home().agent.control().version == control.version
    assert browser.post("/console/switches/on", data={**form, "tenant": "other"}).status_code == 303
    mine = next(s for s in world.home().agent.control().switches if s.scope == {"tenant": "other"})
    reader = client(world, guard, key_of(guard, "read", "third"))
    assert reader.get(f"/console/switches/{mine.switch_id}/containment").status_code == 404
    seen = browser.get(f"/console/switches/{mine.switch_id}/containment")
    assert seen.status_code == 200 and seen.text.startswith("Contained at once")
    assert mine.switch_id not in reader.get("/console/switches").text
    assert mine.actor.startswith("key:")
    stranger = client(world, guard, key_of(guard, "admin", "third"))
    other_s = {**form, "csrf": csrf_any(stranger)}
    for name in (mine.switch_id, "other:never"):  # not even whether it is on
        assert stranger.post(f"/console/switches/{name}/off", data=other_s).status_code == 404
    page = browser.get("/console/switches").text
    assert mine.switch_id.startswith("other:") and mine.switch_id.removeprefix("other:") in page
    assert f">{mine.switch_id}<" not in page and f">{mine.switch_id}<" in client(
        world, guard, key_of(guard, "admin")
    ).get("/console/switches").text
    assert browser.post(f"/console/switches/{mine.switch_id}/off", data=form).status_code == 303


def test_how_fast_a_switch_took_hold_is_read_once_when_its_time_is_over(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lumyn.console import switches
    from streams.local_log import wall_clock_ms

    asked: list[str] = []
    measure = switches.containment
    monkeypatch.setattr(switches, "containment", lambda *given, **more: asked.append("x") or measure(*given, **more))
    browser = client(fresh)
    home = fresh.home()
    to = f"/console/switches/{home.agent.control().switches[0].switch_id}/containment"
    texts = [browser.get(to).text for _ in range(2)]
    assert len(asked) == 2, "while it may still change it is measured each time"
    monkeypatch.setattr(switches, "wall_clock_ms", lambda: wall_clock_ms() + 60_000)
    texts += [browser.get(to).text for _ in range(3)]
    assert len(asked) == 3 and len(set(texts)) == 1


def test_a_wrong_key_does_not_log_in_and_a_revoked_one_ends_its_session(world: World, guard: Guard) -> None:
    browser = client(world, guard)
    for key in ("", "x", "lumyn_000000000000_" + "A" * 43, PAYLOADS[0], "ü" * 50):
        answer = browser.post("/console/login", data={"key": key})
        assert answer.status_code == 401 and "set-cookie" not in answer.headers
    kept, key = guard.store.create("default", roles_of(["read"]), actor="test")
    answer = browser.post("/console/login", data={"key": key})
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/console"} <= {part.strip() for part in cookie.split(";")}
    assert key not in answer.headers["set-cookie"]
    assert browser.get("/console/decisions").status_code == 200
    assert browser.get("/v1/decisions").status_code == 401  # a session is the console's alone
    guard.store.revoke(kept.key_id, actor="test")
    assert browser.get("/console/decisions").status_code == 303


def test_logging_out_ends_the_session_on_the_server(world: World, guard: Guard) -> None:
    browser = client(world, guard, key_of(guard, "label"))
    cookie = browser.cookies[COOKIE]
    assert browser.post("/console/logout", data={"csrf": "x"}).status_code == 403
    reader = client(world, guard, key_of(guard, "read"))
    token = re.search(r'name="csrf" value="([^"]+)"', reader.get("/console/live").text)
    assert token
    cookie = reader.cookies[COOKIE]
    assert reader.post("/console/logout", data={"csrf": token[1]}).status_code == 303
    reader.cookies.set(COOKIE, cookie, path="/console")
    assert reader.get("/console/decisions").status_code == 303


def test_sessions_end_by_age_and_idleness_and_their_number_is_bounded(
    world: World, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.requests import Request

    now = [0.0]
    visits = Visits(world.config, guard, clock=lambda: now[0])
    key = key_of(guard, "read")

    def there(token: str) -> bool:
        headers = [(b"host", b"x"), (b"cookie", f"{COOKIE}={token}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}
        return visits.visit(Request(scope)) is not None

    token = visits.log_in(key)
    assert token and there(token) and not there(token + "x") and not there("")
    now[0] += IDLE_S - 1
    assert there(token)
    now[0] += IDLE_S + 1
    assert not there(token)
    token = visits.log_in(key)
    assert token
    for _ in range(int(SESSION_S // (IDLE_S - 1)) + 1):
        now[0] += IDLE_S - 1
        alive = there(token)
    assert not alive
    monkeypatch.setattr("lumyn.console.visit.MAX_SESSIONS", 3)
    tokens = [visits.log_in(key) for _ in range(5)]
    assert [there(str(token)) for token in tokens] == [False, False, True, True, True]


def test_a_spent_key_is_told(world: World, guard: Guard) -> None:
    from lumyn.access.rates import Rate

    key = guard.store.create("default", roles_of(["read"]), actor="test", rate=Rate(2, 3600))[1]
    browser = client(world, guard, key)
    answers = [browser.get("/console/decisions").status_code for _ in range(3)]
    assert answers[0] == 200 and answers[-1] == 429
    assert RateLimited.code == "rate_limited"


class Parsed(HTMLParser):
    """What a browser would make of a page: its elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_every_page_is_ours_alone_whatever_is_recorded(world: World) -> None:
    """No element, attribute, handler or address that a recorded text made; nothing inline, nothing from elsewhere."""
    browser = client(world)
    raw = [chr(code) for code in (0x202E, 0x202C, 0x1B, 0x00, 0x200B)]
    for path in [*world.pages(), "/login", "/nothing"]:
        answer = browser.get(f"/console{path}")
        assert answer.headers["content-security-policy"] == render.POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not [char for char in raw if char in answer.text], path
        for tag, attributes in Parsed(answer.text).found:
            assert tag not in ("img", "iframe", "object", "embed", "base", "style"), (path, tag)
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (path, tag)
            for name in ("href", "src", "action"):
                value = attributes.get(name)
                assert value is None or re.match(r"(/console[/?]|/console$|#)", value), (path, tag, value)
            if tag == "script":
                assert set(attributes) <= {"src", "defer"} and "/static/" in str(attributes["src"])
        if path == f"/decisions/{world.ids['hostile']}":
            assert "&lt;script&gt;window.pwned=1&lt;/script&gt;" in answer.text
            assert "\\u202egnp.exe" in answer.text and "\\x1b[31m" in answer.text


def test_the_policy_of_content_lets_nothing_through() -> None:
    parts = dict(part.strip().split(" ", 1) for part in render.POLICY.split(";"))
    assert parts["default-src"] == "'none'" and parts["frame-ancestors"] == "'none'" and parts["base-uri"] == "'none'"
    assert parts["script-src"] == parts["style-src"] == "'self'"
    assert "unsafe" not in render.POLICY and "data:" not in render.POLICY and "*" not in render.POLICY


def test_a_report_opens_in_a_sandbox_and_nothing_else_is_read(world: World) -> None:
    browser = client(world)
    answer = browser.get("/console/backtests/may")
    assert answer.status_code == 200 and "report" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-same-origin; default-src 'none';") and "script" not in policy
    (world.folder / ".lumyn" / "reports" / "default" / "link.html").symlink_to(world.folder / "policy.yml")
    for name in ("link", "..%2f..%2flumyn.db", "%2e%2e", "nothing", "may.html", "%00", "x" * 300):
        assert browser.get(f"/console/backtests/{name}").status_code in (404, 400, 422), name
    for name in ("..%2fapp.py", "app.py", "%2e%2e%2fapp.py", "nothing.css"):
        assert browser.get(f"/console/static/{name}").status_code == 404, name


@pytest.mark.parametrize("query", ["verdit=DENY", "verdict=", "(" * 300, "created_at > 'soon'", "verdict=DENY AND AND"])
def test_a_bad_query_is_shown_in_its_place(world: World, query: str) -> None:
    answer = client(world).get("/console/decisions", params={"q": query})
    assert answer.status_code == 422
    told = re.search(r"Column (\d+): ", answer.text)
    assert told and f"\n{' ' * (int(told[1]) - 1)}^</pre>" in answer.text
    assert "\\n" not in answer.text and "here:" not in answer.text


def test_where_there_is_no_page_the_menu_is_there_for_who_is_known(world: World, guard: Guard) -> None:
    known, nobody = client(world, guard, key_of(guard, "read")), client(world, guard)
    for path in ("/nothing", "/decisions/x/y/z", "/policies/x/activate"):
        answer = known.get(f"/console{path}")
        assert answer.status_code == 404 and "Not Found" in answer.text and 'aria-label="Pages"' in answer.text
        assert nobody.get(f"/console{path}").status_code == 303


def test_a_fact_of_a_trace_says_what_it_was_held_against() -> None:
    from lumyn.console.decisions import fact

    risk = {"fact": "chargeback_risk", "value": 0.91, "op": "gte", "want": 0.8}
    assert fact(risk) == "chargeback_risk = 0.91 (≥ 0.8)"
    assert fact({**risk, "not": True, "value": "x", "wrong_type": True}) == 'chargeback_risk = "x" (wrong type) (not ≥ 0.8)'
    assert fact({"fact": "cabin", "missing": True, "op": "in", "want": ["a", "b"]}) == 'cabin = missing (is one of "a", "b")'


def test_a_condition_is_said_in_words() -> None:
    from lumyn.console.conditions import condition_lines

    said = {
        '["all"]': [],
        '["amount_usd", "gt", 250]': ["amount_usd > 250"],
        '["all", ["a", "eq", "x\\"y"], ["b", "in", ["c", 1]]]': ['a = "x\\"y"', 'b is one of "c", 1'],
        '["any", ["a", "exists", false], ["all", ["b", "between", [1, 2]], ["not", ["c", "matches", "x"]]]]': [
            'a is missing or (b is between 1 and 2 and not c matches "x")'
        ],
        '["all", ["any", ["a", "lt", 1]], ["d", "exists", true]]': ["a < 1", "d is present"],
        '["all", "eq", "a fact of that name"]': ['all = "a fact of that name"'],
        '["all", "in", ["x"]]': ['all is one of "x"'],
    }  # fmt: skip
    for text, lines in said.items():
        assert condition_lines(json.loads(text)) == lines


@pytest.mark.parametrize("cursor", ["x", "'", "0" * 26 + "x", PAYLOADS[0], "\x00"])
def test_a_wrong_cursor_is_refused(world: World, cursor: str) -> None:
    for path in ("/decisions", "/inbox"):
        assert client(world).get(f"/console{path}", params={"after": cursor}).status_code == 422
    assert client(world).get("/console/decisions", params={"before": cursor}).status_code == 422


def test_pages_of_the_list_go_on_and_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumyn.console.decisions.find_page.__defaults__", (4,))
    browser = client(world)
    walked: list[list[str]] = []
    path, back = "/console/decisions", ""
    while path:
        text = browser.get(path).text
        walked.append(re.findall(r'data-row href="/console/decisions/(\w+)"', text))
        older = re.search(r'href="([^"]+)" rel="next"', text)
        newer = re.search(r'href="([^"]+)" rel="prev"', text)
        assert (newer is None) == (len(walked) == 1)
        path, back = (older[1] if older else ""), (newer[1] if newer else "")
    whole = [row.decision_id for row in world.home().index().find(None, tenant="default")]
    assert [name for page in walked for name in page] == whole and len(walked) > 2
    assert re.findall(r'data-row href="/console/decisions/(\w+)"', browser.get(back).text) == walked[-2]


def test_a_form_has_limits(world: World) -> None:
    browser = client(world)
    to = f"/console/decisions/{world.ids['open']}/label"
    token = csrf_any(browser)
    assert browser.post(to, data={"csrf": token, "summary": "x" * MAX_FORM_BYTES}).status_code == 413
    assert browser.post(to, data={f"f{n}": "x" for n in range(200)}).status_code == 422
    assert browser.post(to, json={"csrf": token, "label": "failure"}).status_code == 422
    assert browser.post(to, content=b"\xff", headers={"content-type": "application/x-www-form-urlencoded"}).status_code == 422
    assert browser.post(to, data={"csrf": token, "label": "failure", "summary": "x" * 5000}).status_code == 422
    assert browser.post(to, data={"csrf": token, "label": "failure", "should": "ESCALATE"}).status_code == 422
    assert browser.post(to, data={"csrf": token, "label": PAYLOADS[0]}).status_code == 422
    assert world.home().events(world.ids["open"]) == []


def test_a_label_sent_twice_counts_once_and_has_its_key_s_name(fresh: World) -> None:
    guard = guard_for(fresh.config, dev=False)
    browser = client(fresh, guard, key_of(guard, "admin"))
    name = fresh.ids["allowed"]
    form = {"label": "failure", "summary": "wrong", "event_id": "one", "csrf": csrf_any(browser)}
    for _ in range(2):
        assert browser.post(f"/console/decisions/{name}/label", data=form).status_code == 303
    events = fresh.home().events(name)
    assert [(e["label"], e["summary"]) for e in events] == [("failure", "wrong")]
    assert events[0]["actor"].startswith("key:") and "admin" in events[0]["actor"]
    assert fresh.decide(refund(100))["verdict"] == "DENY"


def test_replay_and_verify_from_the_page(fresh: World) -> None:
    browser = client(fresh)
    for memory in ("recorded", "current", "as-of"):
        answer = post(browser, f"/decisions/{fresh.ids['allowed']}/replay", memory=memory)
        assert answer.status_code == 200 and "The same again" in answer.text, memory
    sdk.label_in(fresh.home(), fresh.ids["allowed"], "failure", summary="x")
    answer = post(browser, f"/decisions/{fresh.ids['allowed']}/replay", memory="current")
    assert "Another answer now" in answer.text and "Changed by: memory" in answer.text
    assert post(browser, f"/decisions/{fresh.ids['allowed']}/replay", memory=ALL).status_code == 422
    answer = post(browser, f"/decisions/{fresh.ids['hostile']}/verify")
    assert answer.status_code == 200 and "record_digest" in answer.text and "fails:" not in answer.text


def test_a_record_that_was_touched_is_not_shown(fresh: World) -> None:
    import sqlite3

    with sqlite3.connect(fresh.folder / ".lumyn" / "lumyn.db") as db:
        db.execute("UPDATE log_records SET value = replace(value, 'ESCALATE', 'ALLOW')")
    answer = client(fresh).get(f"/console/decisions/{fresh.ids['open']}")
    assert answer.status_code == 500 and "record_digest" in answer.text and "Traceback" not in answer.text


def test_a_policy_is_made_active_and_rolled_back_when_it_is_confirmed(fresh: World) -> None:
    browser = client(fresh)
    control = fresh.home().agent.control()
    old, new = (next(p for p in control.policies.values() if p.version == v) for v in ("4.1.0", "4.2.0"))
    to = f"/policies/{new.hash}/activate"
    for form in ({}, {"confirm": "yes"}, {"confirm": "yes", "why": " "}, {"why": "x"}, {"confirm": "no", "why": "x"}):
        assert post(browser, to, **form).status_code == 422
    assert fresh.home().agent.control().version == control.version
    assert post(browser, f"/policies/{old.hash}/activate", confirm="yes", why="first").status_code == 303
    assert post(browser, to, confirm="yes", why="better").status_code == 303
    assert fresh.home().agent.control().active["refunds"] == new.hash
    assert "Roll back</button>" in browser.get("/console/policies").text
    assert post(browser, "/policies/rollback", name="refunds", confirm="yes", why="worse").status_code == 303
    assert fresh.home().agent.control().active["refunds"] == old.hash


def test_what_changes_between_two_policies_is_said_rule_by_rule() -> None:
    from lumyn.console.policies import rule_changes
    from streams.policy import load_policy

    def policy(rules: str, rest: str = "") -> Any:
        return load_policy(f"policy: p\nversion: 1\nrules:\n{rules}{rest}".encode(), name="p")

    a = "  - {id: A, if: {x: {gt: 1}}, then: {verdict: DENY, reason_codes: [A]}}\n"
    b = "  - {id: B, if: {x: {gt: 5}}, then: {verdict: ALLOW, reason_codes: [B]}}\n"
    c = b.replace("id: B", "id: C")
    assert rule_changes(policy(a + b), policy(a + b)) == ([], 2)
    changes, same = rule_changes(policy(a + b), policy(a.replace("gt: 1", "gt: 2") + c, "memory: {}\n"))
    assert [(one.id, one.how) for one in changes] == [
        ("A", "changed"), ("C", "new"), ("B", "gone"), ("memory", "changed"),
    ]  # fmt: skip
    assert [part[0] for part in changes[0].parts] == ["if"] and same == 0
    changes, _ = rule_changes(policy(a + b), policy(b + a, "default: {verdict: DENY, reason_codes: [D]}\n"))
    assert [one.id for one in changes] == ["order of rules", "default"]


def test_relabelling_does_what_was_shown_or_nothing(fresh: World) -> None:
    browser = client(fresh)
    form = {"query": f"decision_id = {fresh.ids['allowed']}", "label": "failure", "should": "", "why": "import was wrong"}
    shown = post(browser, "/memory/relabel/preview", **form)
    assert shown.status_code == 200 and "not in memory → harmful: 1" in shown.text
    assert fresh.home().events(fresh.ids["allowed"]) == []
    mark = re.search(r'name="shown" value="([^"]+)"', shown.text)
    assert mark
    assert post(browser, "/memory/relabel/apply", **form, shown=mark[1]).status_code == 422  # not confirmed
    sdk.label_in(fresh.home(), fresh.ids["allowed"], "success", summary="meanwhile")
    stale = post(browser, "/memory/relabel/apply", **form, shown=mark[1], confirm="yes")
    assert stale.status_code == 422 and "not any more as it was shown" in stale.text
    assert len(fresh.home().events(fresh.ids["allowed"])) == 1
    again = re.search(r'name="shown" value="([^"]+)"', post(browser, "/memory/relabel/preview", **form).text)
    assert again
    done = post(browser, "/memory/relabel/apply", **form, shown=again[1], confirm="yes")
    assert done.status_code == 303
    assert fresh.home().events(fresh.ids["allowed"])[-1]["label"] == "failure"
    job = re.search(r"job=([\w-]+)", done.headers["location"])
    assert job
    assert post(browser, "/memory/undo", job=job[1], confirm="yes", why="undo").status_code == 303
    assert fresh.home().events(fresh.ids["allowed"])[-1]["type"] == "restore"
    for bad in ({"query": ""}, {"query": "verdit=1"}, {"label": "x"}, {"should": "MAYBE"}, {"why": " "}):
        assert post(browser, "/memory/relabel/preview", **{**form, **bad}).status_code == 422, bad


def test_a_postmortem_is_written_and_shown_in_a_sandbox(fresh: World) -> None:
    browser = client(fresh)
    assert post(browser, "/incidents/INC-1/write", section="cause", text=ALL).status_code == 303
    assert post(browser, "/incidents/INC-1/write", section="nothing", text="x").status_code in (400, 422)
    answer = browser.get("/console/incidents/INC-1/postmortem")
    assert answer.status_code == 200 and "What We Could Not Determine" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox allow-same-origin; default-src 'none';")
    tags = {tag for tag, _ in Parsed(answer.text).found}
    assert not tags & {"script", "img", "svg", "iframe", "form"}, tags


def test_what_would_have_altered_a_verdict(fresh: World) -> None:
    name = fresh.decide(refund(260, user="usr_near"))["decision_id"]
    answer = post(client(fresh), f"/decisions/{name}/alter")
    assert answer.status_code == 200
    told = answer.text.split('id="altered"')[1].split("</section>")[0]
    assert "ALLOW" in told and "250" in told


def test_the_audit_names_who_changed_what(fresh: World) -> None:
    guard = guard_for(fresh.config, dev=False)
    browser = client(fresh, guard, key_of(guard, "admin"))
    text = browser.get("/console/audit").text.replace("<wbr>", "")
    assert "kill_switch_on" in text and "key_created" in text and "policy_shadowed" in text
    assert "labeller &lt;script&gt;" in text


def test_incidents_from_the_console(fresh: World) -> None:
    browser = client(fresh)
    opened = post(browser, "/incidents/open", title="Double refunds", severity="sev2", decision=fresh.ids["allowed"])
    assert opened.headers["location"].startswith("/console/incidents/INC-2")
    assert post(browser, "/incidents/INC-2/note", text=ALL).status_code == 303
    assert post(browser, "/incidents/link", incident="INC-2", decision=fresh.ids["open"], note="x").status_code == 303
    text = browser.get("/console/incidents/INC-2").text
    assert fresh.ids["allowed"] in text and fresh.ids["open"] in text
    assert post(browser, "/incidents/open", title="", severity="sev2").status_code == 422
    assert post(browser, "/incidents/link", incident="INC-9", decision=fresh.ids["open"]).status_code == 404


def test_before_the_first_decision_the_console_says_so(tmp_path: Path) -> None:
    from lumyn import LumynConfig

    world = World(tmp_path, LumynConfig(home=tmp_path / "none", actor="oncall"))
    answer = client(world).get("/console/decisions")
    assert answer.status_code == 404 and "there are no decisions here yet" in answer.text
    assert not (tmp_path / "none").exists()


def test_the_api_s_description_is_there_for_a_browser_that_has_logged_in(world: World, guard: Guard) -> None:
    """A browser can't send the key that `/docs` asks for."""
    assert client(world, guard).get("/console/api").status_code == 303
    browser = client(world, guard, key_of(guard, "read"))
    assert browser.get("/docs").status_code == 401
    page = browser.get("/console/api").text
    assert "GET /v1/decisions/{decision_id}/explain" in page and 'href="/console/openapi.json"' in page
    assert browser.get("/console/openapi.json").json()["openapi"] == "3.1.0"
    assert 'href="/console/api"' in browser.get("/console/decisions").text


@pytest.mark.parametrize(
    ("state", "target", "shown"),
    [("alert", None, "alarm"), ("none", "missed", "alarm"), ("ok", None, "told"), ("ok", "met", "told"), ("none", "met", "told"),
     ("none", "not_met", "neither"), ("none", None, "neither"), ("unclear", None, "neither"), ("no_data", None, "neither"),
     ("ok", "not_shown", "neither")],
)  # fmt: skip
def test_only_what_is_known_to_be_well_is_shown_so(state: str, target: str | None, shown: str) -> None:
    assert stands({"alert": state == "alert", "state": state, "target_state": target}) == shown


def test_a_target_is_shown_with_the_rate_that_it_goes_by(fresh: World) -> None:
    """The target's window is another than those that alert, and a watch without an alert has no other state."""
    save_watch(fresh.home(), make_watch("fixed", "verdict = DENY", target="rate < 1%"))
    seen = check(fresh.home(), "fixed")["windows"]["target"]
    text = client(fresh).get("/console/watches/fixed").text
    assert f"{seen['rate']:.2%} ({seen['lower']:.2%} to {seen['upper']:.2%}) of {seen['count']} in 7 d" in text
    assert 'class="neither"' in text and "target not met" in client(fresh).get("/console/watches").text
