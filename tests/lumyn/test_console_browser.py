"""The console in a real Chromium: clicks and keys, accessibility of every page, and that nothing recorded runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from console_world import ALL, World, build, hostile, refund, served
from servers.chromium import chromium

from lumyn import sdk
from lumyn.access.principal import roles_of
from lumyn.api.homes import guard_for
from lumyn.backtest_html import as_html
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.postmortem import gather
from lumyn.incidents.render import as_html as postmortem_page
from lumyn.incidents.render import as_markdown
from lumyn.wiring import close_homes

SIZES = ((1280, 900), (390, 844))
THEMES = ("light", "dark")
_ALL = {"resultTypes": ["violations"]}
_LOOKS = {**_ALL, "runOnly": ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]}
"""The rules that depend on theme or width; the others ask for elements, which are the same in all."""
_TWINS = ("?q=verdict%3DDENY", "?of=mine", "/incidents?q=")
"""Pages with the elements of others: axe passes them over."""

_CUT = """[...document.querySelectorAll('.wide')].filter((one) => one.scrollWidth > one.clientWidth + 1)
  .map((one) => one.getAttribute('aria-label'))"""
"""Tables that have to be scrolled sideways: what is at their right is not seen."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield build(tmp_path_factory.mktemp("browser"))
    close_homes()


@pytest.fixture(scope="module")
def address(world: World, browser: Any) -> Iterator[str]:
    with served(world, dev=True) as at:
        yield at


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page; it may ask this server alone, and nothing may go wrong on it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address, **options)
    context.set_default_timeout(10_000)
    asked: list[str] = []
    wrong: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    try:
        yield page
        assert not [url for url in asked if not url.startswith(f"{address}/")], asked
        assert not wrong, wrong
    finally:
        context.close()


def until(page: Any, holds: str) -> None:
    """Wait until an expression holds. The page's own policy lets no test evaluate text in it again and again."""
    for _ in range(200):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {holds}")


def violations(page: Any, options: dict[str, Any]) -> list[str]:
    """What axe finds, each with where."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    found = page.evaluate("(options) => axe.run(options)", options)["violations"]
    return [f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0].get('failureSummary', '')}" for one in found]


def test_every_page_is_accessible_runs_nothing_recorded_and_fits(browser: Any, address: str, world: World) -> None:
    """axe finds nothing in both themes and widths; no page is wider than the screen; no recorded script ran."""
    bad: list[str] = []
    with opened(browser, address, reduced_motion="reduce") as page:
        for path in world.pages():
            page.goto(f"/console{path}")
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                for theme in () if any(twin in path for twin in _TWINS) else THEMES:
                    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
                    options = _ALL if (width, theme) == (SIZES[0][0], THEMES[0]) else _LOOKS
                    bad += [f"{path} {width} {theme}: {one}" for one in violations(page, options)]
                over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if over > 0:
                    bad.append(f"{path} is {over} px too wide at {width}")
                bad += [f"{path}: `{name}` is cut at {width}" for name in page.evaluate(_CUT)]
            assert page.evaluate("window.pwned") is None, path
            foreign = "img, iframe, object, embed, base, style, [style], main script, [onload], [onerror], [onfocus]"
            assert page.locator(foreign).count() == 0, path
            assert page.locator("h1").count() == 1 and page.locator("h1:text-is('owned')").count() == 0, path
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("path", ["/decisions", "/inbox", "/live"])
def test_amounts_are_seen_on_a_phone(browser: Any, address: str, path: str) -> None:
    with opened(browser, address) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(f"/console{path}")
        amounts = page.locator("tbody td.n:visible", has_text="USD")
        places = [amounts.nth(at).bounding_box() for at in range(amounts.count())]
        assert places and all(one["x"] >= 0 and one["x"] + one["width"] <= 390 for one in places)
        cut = "(all) => all.filter((one) => one.textContent.length < 10 && one.scrollWidth > one.clientWidth).length"
        assert amounts.evaluate_all(cut) == 0


def test_a_report_in_its_sandbox_runs_nothing(browser: Any, address: str) -> None:
    context = browser.new_context(base_url=address)
    page = context.new_page()
    page.goto("/console/backtests")
    page.click("text=may")
    assert page.inner_text("h1") == "report"
    assert page.locator("script").count() == 1
    assert page.title() == "r" and "pwned" not in page.evaluate("Object.keys(window).join()")
    context.close()


def test_a_postmortem_and_a_report_are_accessible(browser: Any, world: World) -> None:
    """As files, since axe waits for timers, of which there are none in the sandbox."""
    incidents = Incidents(world.home())
    incident = incidents.show("INC-1")
    report = as_html(sdk.backtest(world.folder / "policy.yml", config=world.config))
    for text in (report, postmortem_page(as_markdown(gather(incidents, incident), incident), "INC-1")):
        for width, theme in ((1280, "light"), (390, "dark")):
            context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme, bypass_csp=True)
            page = context.new_page()
            page.set_content(text)
            assert violations(page, _ALL) == [], (width, theme)
            context.close()


def test_a_postmortem_and_a_report_are_read_on_a_phone_and_lead_back(browser: Any, world: World) -> None:
    """Files of their own, in a sandbox: nothing is scrolled sideways, and one gets back, still logged in."""
    report = as_html(sdk.backtest(world.folder / "policy.yml", config=world.config))
    (world.folder / ".lumyn" / "reports" / "default" / "whole.html").write_text(report)
    key = guard_for(world.config, dev=False).store.create("default", roles_of(["read"]), actor="test", name="phone")[1]
    with served(world, dev=False) as address, opened(browser, address) as page:
        page.goto("/console/login")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_url("**/console/decisions")
        for path, back in (("/incidents/INC-1/postmortem", "/incidents/INC-1"), ("/backtests/whole", "/backtests"), ("/backtests/may", "/backtests")):
            page.goto(f"/console{path}")
            if not path.endswith("may"):
                for width in (1280, 390, 320):
                    page.set_viewport_size({"width": width, "height": 844})
                    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
                    assert width == 1280 or (page.locator(".fold").count() and page.evaluate(_CUT) == []), (path, width)
            page.click("nav.back a")
            page.wait_for_url(f"**/console{back}")
            assert page.locator("h1").count() == 1


def test_a_label_from_the_page_changes_the_next_decision(browser: Any, address: str, world: World) -> None:
    request = refund(40, user="usr_labelled")
    name = world.decide(request)["decision_id"]
    with opened(browser, address) as page:
        page.goto(f"/console/decisions/{name}")
        page.check("input[value=failure]")
        page.fill("#summary", "should not have gone out")
        page.click("button:has-text('Label')")
        page.wait_for_selector(".told")
        assert page.url.endswith("#history")
        assert "should not have gone out" in page.inner_text("[aria-label=History]")
        again = world.decide(request)
        assert again["verdict"] == "DENY"
        page.goto(f"/console/decisions/{again['decision_id']}")
        assert "DENY" in page.inner_text("h1")
        assert page.locator("svg.picture path.harmful").count() >= 1
        page.click("[aria-label='Memory neighbours'] a >> nth=0")
        assert page.url.endswith(name)


def test_replay_from_the_page(browser: Any, address: str, world: World) -> None:
    name = world.decide(refund(77, user="usr_replayed"))["decision_id"]
    with opened(browser, address) as page:
        page.goto(f"/console/decisions/{name}")
        page.click("button:has-text('Replay now')")
        assert page.inner_text("#replayed").startswith("The same again: ")
        sdk.label_in(world.home(), name, "failure", summary="x")
        page.goto(f"/console/decisions/{name}")
        page.select_option("#memory[name=memory], select[name=memory]", "current")
        page.click("button:has-text('Replay now')")
        assert page.inner_text("#replayed").startswith("Another answer now: ")
        page.click("button:has-text('Verify')")
        assert "Every check holds" in page.inner_text("[aria-label=Checks]")


def test_an_escalation_is_taken_and_answered_by_keyboard(browser: Any, address: str, world: World) -> None:
    name = world.decide(refund(390, user="usr_asks"))["decision_id"]
    with opened(browser, address) as page:
        page.goto("/console/decisions")
        page.keyboard.press("g")
        page.keyboard.press("i")
        page.wait_for_url("**/console/inbox")
        page.keyboard.press("k")  # from below: the newest
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/console/inbox/{name}")
        page.focus("button:has-text('Assign to me')")
        page.keyboard.press("Enter")
        page.wait_for_selector(".told")
        page.focus("input[name=verdict][value=DENY]")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.type("the receipt is not theirs")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Reopen it")
        assert "resolved by oncall" in page.inner_text("dl")
    event = world.home().events(name)[-1]
    assert (event["label"], event["should"], event["summary"]) == ("failure", "DENY", "the receipt is not theirs")
    assert world.decide(refund(390, user="usr_asks"))["verdict"] == "DENY"


def test_of_two_who_answer_the_second_is_told_on_the_page(browser: Any, address: str, world: World) -> None:
    wire = {"type": "wire_transfer", "amount": {"value": 395, "currency": "USD"}}
    name = world.decide(refund(395, user="usr_twice", action=wire))["decision_id"]
    with opened(browser, address) as one, opened(browser, address) as other:
        for page, verdict in ((one, "ALLOW"), (other, "DENY")):
            page.goto(f"/console/inbox/{name}")
            page.check(f"input[name=verdict][value={verdict}]")
            page.fill("#reason", f"I say {verdict}")
        one.click("button:has-text('Resolve')")
        one.wait_for_selector("text=Reopen it")
        other.click("button:has-text('Resolve')")
        assert "was resolved by oncall" in other.inner_text("[role=alert]")
    assert [e["should"] for e in world.home().events(name)] == ["ALLOW"]


def test_the_theme_is_chosen_kept_and_follows_the_system_without_a_choice(browser: Any, address: str) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, address, color_scheme="dark") as page:
        page.goto("/console/policies")
        dark = page.evaluate(paper)
        page.emulate_media(color_scheme="light")
        light = page.evaluate(paper)
        assert dark != light
        page.click("#theme")
        page.keyboard.press("Escape")
        page.click("#theme")
        assert page.inner_text("#theme") == "Theme: dark" and page.evaluate(paper) == dark
        page.goto("/console/live")
        assert page.evaluate(paper) == dark
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("t")
        assert page.inner_text("#theme") == "Theme: system" and page.evaluate(paper) == light


def test_a_search_and_a_mistake_in_it_by_keyboard(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        page.goto("/console/decisions")
        page.keyboard.press("/")
        page.keyboard.type("verdict=DENY AND amont > 10")
        page.keyboard.press("Enter")
        page.wait_for_selector("#mistake")
        text, mark = page.locator("#mistake pre").evaluate("(pre) => pre.textContent").split("\n")
        assert text[mark.index("^"):].startswith("amont")
        assert page.locator("#q").get_attribute("aria-invalid") == "true"
        page.fill("#q", "verdict=DENY AND amount > 10")
        page.press("#q", "Enter")
        page.wait_for_selector("[data-rows]")
        assert {cell.strip()[-4:] for cell in page.locator("tbody .verdict").all_inner_texts()} == {"DENY"}
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("dialog[open]").count() == 1
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0


def test_the_live_view_moves_pauses_and_counts_all(browser: Any, address: str, world: World) -> None:
    with opened(browser, address) as page:
        page.goto("/console/live")
        page.wait_for_selector(".live-on")
        until(page, "document.getElementById('rate-all').textContent !== '–'")
        sdk.decide_many([refund(n + 1, user=f"usr_live{n}") for n in range(60)], world.config)
        until(page, "Number(document.getElementById('count-all').textContent) >= 60")
        shown = page.locator("#rows tr")
        assert shown.count() == 20
        assert page.locator("#rows tr.fresh").count() >= 5
        name = world.decide(hostile(320))["decision_id"]
        page.wait_for_selector(f"#rows a[href$='{name}']")
        assert "<svg onload=window.pwned=1>" in page.inner_text(f"#rows tr:has(a[href$='{name}'])")
        assert page.locator("#rows :is(svg, img, script, h1)").count() == 0
        page.click("#pause")
        page.wait_for_selector("#state.live-off")
        counted = page.inner_text("#count-all")
        sdk.decide_many([refund(n + 1, user=f"usr_more{n}") for n in range(30)], world.config)
        page.click("#pause")
        until(page, f"document.getElementById('count-all').textContent !== '{counted}'")
        assert int(page.inner_text("#count-all")) >= 90
        page.click("#rows tr >> nth=0 >> a")
        page.wait_for_url("**/console/decisions/*")


def test_a_switch_goes_on_and_off_with_its_containment(browser: Any, address: str, world: World) -> None:
    request = refund(15, user="usr_stopped")
    with opened(browser, address) as page:
        page.goto("/console/switches")
        page.fill("#action_type", "refund")
        page.fill("#why", "double refunds")
        page.click("button:has-text('Put on')")
        assert page.url.endswith("/console/switches")  # the box is not ticked: the browser does not send it
        page.check("form[action$='/on'] input[name=confirm]")
        page.click("button:has-text('Put on')")
        page.wait_for_selector(".told")
        assert world.decide(request)["reason_codes"] == ["KILL_SWITCH"]
        page.reload()
        section = page.locator("section", has_text="double refunds")
        section.locator("text=Contained at once").wait_for()
        assert "Contained at once" in section.inner_text() and "; 1 denied" in section.inner_text()
        section.locator("input[name=why]").fill("fixed")
        section.locator("input[name=confirm]").check()
        section.locator("button").click()
        page.wait_for_selector(".told")
    assert world.decide(request)["verdict"] != "DENY"


def test_logging_in_out_and_what_a_reader_may_not(browser: Any, world: World) -> None:
    guard = guard_for(world.config, dev=False)
    key = guard.store.create("default", roles_of(["read"]), actor="test", name=f"reader {ALL}"[:80])[1]
    with served(world, dev=False) as address, opened(browser, address) as page:
        page.goto("/")
        page.wait_for_url("**/console/login")
        assert violations(page, _ALL) == []
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        assert "not known" in page.inner_text("[role=alert]")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_url("**/console/decisions")
        assert page.evaluate("document.cookie") == "" and key not in page.content()
        for width in (1280, 390, 320):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
            assert page.locator("button:has-text('Log out')").bounding_box()["y"] < 60
        assert violations(page, _ALL) == []
        page.goto(f"/console/decisions/{world.ids['allowed']}")
        assert page.locator("button:has-text('Label')").count() == 0
        page.click("button:has-text('Log out')")
        page.wait_for_url("**/console/login")
        page.goto("/console/decisions")
        page.wait_for_url("**/console/login")


def test_an_incident_from_a_query_to_its_end(browser: Any, address: str, world: World) -> None:
    """Opened from the decisions found, an action item added and ticked, contained, closed, reopened: all by clicks."""
    with opened(browser, address) as page:
        page.goto("/console/decisions?q=verdict%3DDENY")
        page.click("text=open an incident of these")
        assert page.input_value("#query") == "verdict=DENY"
        page.fill("#title", "Too many denials")
        page.press("#title", "Enter")
        page.wait_for_selector(".told")
        name = page.inner_text("h1").split()[0]
        page.click("text=Add an action item")
        page.fill("#text-new", "Look at the denials")
        page.fill("#owner-new", "mia")
        page.fill("#target-new", "better")
        page.click("button:text-is('Add')")
        assert "is no target for a rate" in page.inner_text("[role=alert]")
        assert page.input_value("#owner-new") == "mia"
        assert violations(page, _ALL) == []
        page.fill("#target-new", "under 5%")
        page.fill("#query-new", "verdict=DENY")
        page.click("button:text-is('Add')")
        page.wait_for_selector(".told")
        row = page.locator("[aria-label=Actions] tbody tr")
        assert "under 5%" in row.inner_text() and row.locator("a:text-is('watch')").count() == 1
        row.locator("summary").click()
        page.fill("#owner-A1", "ben")
        page.select_option("#state-A1", "doing")
        row.locator("button:text-is('Change')").click()
        page.wait_for_selector(".told")
        assert "ben" in row.inner_text() and "doing" in row.inner_text()
        row.locator("button:has-text('Done')").click()
        page.wait_for_selector("button:text-is('Open again')")
        page.select_option("#status", "contained")
        page.fill("#status-why", "switched off")
        page.click("button:text-is('Say so')")
        page.wait_for_selector(".tag:text-is('contained')")
        page.fill("#why", "the limit was wrong")
        page.click("button:text-is('Close')")
        page.wait_for_selector(".tag:text-is('closed')")
        assert "the limit was wrong" in page.inner_text("dl")
        page.fill("#why", "again")
        page.click("button:text-is('Reopen')")
        page.wait_for_selector(".tag:text-is('open')")
    found = Incidents(world.home()).show(name)
    assert [(one.owner, one.state) for one in found.actions] == [("ben", "done")]
    assert [event.kind for event in found.events][-3:] == ["status", "closed", "reopened"]


def test_an_incident_is_opened_from_a_decision_by_keyboard(browser: Any, address: str, world: World) -> None:
    with opened(browser, address) as page:
        page.goto(f"/console/decisions/{world.ids['denied']}")
        page.focus("text=Open one with it")
        page.keyboard.press("Enter")
        page.wait_for_selector("#title")
        page.focus("#title")
        page.keyboard.type("From a decision")
        page.keyboard.press("Enter")
        page.wait_for_selector(".told")
        assert page.locator(f"[aria-label=Links] a[href$='{world.ids['denied']}']").count() == 1


def test_a_policy_is_published_after_its_diff_by_clicks(browser: Any, address: str, world: World) -> None:
    with opened(browser, address) as page:
        page.goto("/console/policies")
        page.click("[data-rows] a:has-text('4.2.0')")
        page.click("text=Edit into a new version")
        source = page.input_value("#source")
        assert source.startswith("policy: refunds\nversion: 4.2.0\n")
        page.fill("#source", source.replace("verdict: DENY", "verdict: DENNY"))
        page.click("button:has-text('Check it')")
        assert "DENNY" in page.inner_text("[role=alert]") and "DENNY" in page.input_value("#source")
        assert violations(page, _ALL) == []
        page.fill("#source", source.replace("4.2.0", "6.0.0").replace("gt: 400", "gt: 444"))
        page.click("button:has-text('Check it')")
        page.wait_for_selector("[aria-label='Changed rules']")
        assert "444" in page.inner_text("[aria-label='Changed rules']")
        assert violations(page, _ALL) == [] and page.evaluate(_CUT) == []
        hash_ = page.inner_text("#hash")
        page.click("button:text-is('Publish')")
        assert hash_ not in world.home().agent.control().policies  # the box is not ticked: the browser does not send it
        assert hash_ in page.inner_text("label:has(input[name=confirm])")
        page.check("input[name=confirm]")
        page.click("button:text-is('Publish')")
        page.wait_for_selector(".told")
        assert "decides nothing until it is made active" in page.inner_text(".told")
        page.goto("/console/audit")
        assert "6.0.0" in page.inner_text("[aria-label=Changes] tbody tr >> nth=0")
    kept = world.home().agent.control().policies[hash_]
    assert (kept.origin, kept.version, kept.source.count("gt: 444")) == ("publish", "6.0.0", 1)


def test_a_runbook_is_looked_through_from_its_incident(browser: Any, address: str, world: World) -> None:
    before = world.home().agent.control().version
    with opened(browser, address) as page:
        page.goto("/console/incidents/INC-1")
        page.click("a:text-is('kill-switch')")
        assert page.input_value("#incident") == "INC-1"
        page.fill("input[name=scope]", "refund")
        page.fill("input[name=why]", "double refunds")
        page.press("input[name=why]", "Enter")
        page.wait_for_selector("[aria-label=Command]")
        assert "--incident INC-1" in page.inner_text("[aria-label=Command]")
        assert "--action-type refund" in page.inner_text("#step-5")
        page.focus("body")
        page.keyboard.press("g")
        page.keyboard.press("y")
        page.wait_for_url("**/console/gamedays")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Game day')")
    assert world.home().agent.control().version == before


def test_without_javascript_every_form_works(browser: Any, address: str, world: World) -> None:
    name = world.decide(refund(33, user="usr_plain"))["decision_id"]
    with opened(browser, address, java_script_enabled=False) as page:
        page.goto("/console/live")
        assert page.locator("#rows tr").count() >= 10 and page.locator("#theme").is_hidden()
        page.goto(f"/console/decisions/{name}")
        page.check("input[value=note]")
        page.fill("#summary", "plain")
        page.click("button:has-text('Label')")
        assert "The note is stored." in page.content()
        page.goto("/console/incidents/INC-1")
        page.click("text=Add an action item")
        page.fill("#text-new", "plainly")
        page.click("button:text-is('Add')")
        page.click("[aria-label=Actions] tr:has-text('plainly') button:has-text('Done')")
        assert "Open again" in page.inner_text("[aria-label=Actions] tr:has-text('plainly')")
    assert world.home().events(name)[-1]["summary"] == "plain"


def test_a_page_does_not_shift_while_it_loads(browser: Any, address: str, world: World) -> None:
    watch: Callable[[str], str] = lambda entry: (  # noqa: E731
        "new PerformanceObserver((list) => { for (const one of list.getEntries()) if (!one.hadRecentInput) "
        f"window.shifted = (window.shifted || 0) + one.value; }}).observe({{type: '{entry}', buffered: true}})"
    )
    with opened(browser, address) as page:
        page.add_init_script(watch("layout-shift"))
        for path in ("/decisions", "/live", f"/decisions/{world.ids['near']}"):
            page.goto(f"/console{path}")
            page.wait_for_timeout(300 if path == "/live" else 50)
            assert (page.evaluate("window.shifted") or 0) < 0.01, path


def test_nothing_is_left_running(address: str) -> None:
    assert sum(thread.name == "console-feed" for thread in threading.enumerate()) <= 2
