"""The HTML report: one file that loads nothing, runs nothing, and shows what was recorded as the text that it is."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import sdk

pytest_plugins = ("inside_plugin",)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'/><svg/onload=alert(1)>",
    "</style><style>*{display:none}",
    "</title><base href=//evil.example>",
    "{{ 7177 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "\u202eevil\u2066\x1b[2J\x00",
    "a\nb<!-- -->|c`d`[e](http://evil.example)",
]


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(inside: Inside) -> Page:
    inside.write("policy.yml", POLICY.replace("memory: {}\n", ""))
    inside.write("mild.yml", POLICY.replace("memory: {}\n", "").replace("gte: 0.8", "gte: 0.95"))
    for text in HOSTILE:
        name = text if text.isprintable() else "plain"  # ids and types must be printable
        request: dict[str, Any] = refund(100, 0.9, user=name, provenance={"model": text, text[:40]: text})
        request["action"]["intent"] = text
        request["action"]["type"] = name
        request["subject"]["type"] = name
        request["evidence"]["tier"] = text
        record = sdk.decide(request)
        sdk.label(record["decision_id"], "success", summary=text, wait_s=0)
    inside.run("backtest", "--policy", "mild.yml", "--by", "evidence.tier", "--require", "flips <= 200%", "--html", "r.html")
    return Page((inside.folder / "r.html").read_text())


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "p", "dl", "dt", "dd", "div", "span", "b",
    "br", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "details", "summary", "svg", "rect", "line",
    "polyline", "polygon", "circle", "text",
}  # fmt: skip


def test_nothing_recorded_becomes_part_of_the_page(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "href", "srcset", "style", "action") for name in attributes)
        assert not (tag == "svg" and "onload" in str(attributes))
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert "7177 * 7" in page.text and str(7177 * 7) not in page.text


def test_what_was_recorded_is_shown_as_text(page: Page) -> None:
    for text in HOSTILE:
        shown = text.replace("\n", "\\n")
        for code in ("\u202e", "\u2066", "\x1b", "\x00"):
            shown = shown.replace(code, f"\\u{ord(code):04x}" if ord(code) > 0xFF else f"\\x{ord(code):02x}")
        assert shown in page.text, text


def test_nothing_is_loaded_or_run(page: Page, inside: Inside) -> None:
    raw = (inside.folder / "r.html").read_text()
    policy = next(a for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    style = re.search(r"<style>(.*?)</style>", raw, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert any(a.get("name") == "viewport" for tag, a in page.tags if tag == "meta")
    assert len(raw) < 200_000


def test_it_holds_all_parts(page: Page) -> None:
    for part in ("EVERY BAR IS MET", "Recorded verdict down", "Flips over time", "Why they flip", "Rules", "By action_type",
                 "By evidence.tier", "The flips that matter most", "recorded: DENY", "candidate: ALLOW", "root",
                 "Where the outcome is known", "✓ yes", "▼"):  # fmt: skip
        assert part in page.text, part


def test_markdown_is_not_made_by_what_was_recorded(page: Page, inside: Inside) -> None:
    text = inside.run("backtest", "--policy", "mild.yml", "--by", "evidence.tier", "--markdown").stdout
    assert "<script>" not in text and "<img" not in text and "](http" not in text and "`d`" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows and all(line.endswith("|") for line in rows)
