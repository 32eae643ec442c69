"""Checking rates: US dollars for one unit of each currency."""

from __future__ import annotations

import re

from streams.policy.findings import Findings
from streams.policy.read import Unreadable, kind_name, number
from streams.policy.source import Entries, Node
from streams.policy.suggest import quoted

_CURRENCY = re.compile(r"[A-Z][A-Z0-9]{2,9}")


def read_fx(node: Node, out: Findings) -> dict[str, float]:
    """Rates by currency; the wrong ones are reported and left out. Raises `Unreadable` when it is no mapping."""
    if not isinstance(node, Entries):
        out.error(node.mark, f"`fx` takes a mapping such as `{{EUR: 1.08}}`, not {kind_name(node)}")
        raise Unreadable
    rates: dict[str, float] = {}
    for key, value in node.entries:
        if not _CURRENCY.fullmatch(key.text):
            out.error(key.mark, f"{quoted(key.text)} is not a currency code such as `EUR`")
            continue
        try:
            rate = number(value, f"rate of `{key.text}`", out)
        except Unreadable:
            continue
        if rate <= 0 or (key.text == "USD" and rate != 1):
            wanted = "1, because rates are in US dollars" if key.text == "USD" else "above 0"
            out.error(value.mark, f"rate of `{key.text}` must be {wanted}, not `{rate}`")
            continue
        rates[key.text] = rate
    return rates
