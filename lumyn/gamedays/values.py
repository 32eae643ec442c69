"""Single values of a scenario: numbers of requests, shares, times, names."""

from __future__ import annotations

import re
from typing import Final

from lumyn.documents import ANY, Reader
from streams.policy.read import Unreadable
from streams.policy.source import Items, Node, Scalar
from streams.policy.suggest import quoted

MOST_TIMES: Final = 1000
_SPAN = re.compile(r"([+-]?)(\d{1,9})(ms|s|m|h|d)", re.ASCII)
_TIMES = re.compile(r"x?([1-9]\d{0,3})", re.ASCII)
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Values(Reader):
    """Reads them and says what is wrong; then it raises `Unreadable`."""

    def request(self, node: Node) -> int | str:
        if isinstance(node, Scalar) and node.plain and re.fullmatch(r"[1-9]\d{0,8}", node.text, re.ASCII):
            return int(node.text)
        return self.text(node, "`request`", ANY, "a number, a request_id or a decision's id")

    def at(self, node: Node) -> int:
        value = self.whole(node, "the number of a request")
        if value < 1:
            self._out.error(node.mark, "requests are counted from 1")
            raise Unreadable
        return value

    def times(self, node: Node) -> int:
        found = _TIMES.fullmatch(self.text(node, "`times`", ANY, "a number"))
        if found is None or int(found[1]) > MOST_TIMES:
            self._out.error(node.mark, f"`times` is `x2` to `x{MOST_TIMES}`: how often each request comes")
            raise Unreadable
        return int(found[1])

    def span(self, node: Node) -> int:
        """Milliseconds of `30s`, `-2h`, `250ms`."""
        text = self.text(node, "`by`", ANY, "a time such as `30s`")
        found = _SPAN.fullmatch(text)
        if found is None:
            self._out.error(node.mark, f"`by` {quoted(text)} is no time; write `250ms`, `30s`, `-2h`, `3d`")
            raise Unreadable
        return (-1 if found[1] == "-" else 1) * int(found[2]) * _UNITS[found[3]]

    def share(self, node: Node, what: str) -> float:
        text = self.text(node, what, ANY, "a share")
        found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)(%?)", text, re.ASCII)
        value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
        if not 0 <= value <= 1:
            self._out.error(node.mark, f"{what} {quoted(text)} is no share; write `50%` or `0.5`")
            raise Unreadable
        return value

    def words(self, node: Node) -> tuple[str, ...]:
        if isinstance(node, Items):
            return tuple(self.text(item, "a path", ANY, "a path") for item in node.items)
        return (self.text(node, "a path", ANY, "a path"),)
