"""A part of the log to work on: everything, between two times, or between two request positions of a partition."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schemas.errors import BadQuery, UsageError
from schemas.ids import iso_time, time_ms_of
from schemas.query import TODAY, Range, parse_query
from streams.log import Log, Message
from streams.reading import at_offset, first_from, object_in, request_offset
from streams.topics import RECORDS, REQUESTS

_POSITION = re.compile(r"(?!\d\d:\d\d\Z)(\d{1,4}):(\d{1,15})", re.ASCII)
"""Two digits on both sides are a time of today; the position is written `14:025`."""


@dataclass(frozen=True, slots=True)
class Span:
    """Requests from `start` up to `end` (not included): milliseconds since 1970, or offsets where `partition` is given.

    None is an open end.
    """

    start: int | None = None
    end: int | None = None
    partition: int | None = None

    def offsets(self, log: Log, partition: int) -> tuple[int, int | None] | None:
        """The part of a partition: its first request offset, and the one after its last; None: no part of it."""
        if self.partition is not None:
            return (self.start or 0, self.end) if partition == self.partition else None
        first = 0 if self.start is None else _offset_at(log, partition, self.start)
        return first, None if self.end is None else _offset_at(log, partition, self.end)


EVERYTHING = Span()


def parse_span(start: str | None, end: str | None, *, now_ms: int) -> Span:
    """`--from` and `--to`: times (UTC; a day or minute as `--to` is included whole), or positions `PARTITION:OFFSET`.

    Raises `UsageError`.
    """
    positions = [_POSITION.fullmatch(text) if text is not None else None for text in (start, end)]
    if not any(positions):
        low = parse_time(start, "--from", now_ms=now_ms) if start is not None else None
        high = parse_time(end, "--to", now_ms=now_ms, whole=True) if end is not None else None
        if low is not None and low > now_ms and "-" not in str(start):
            raise UsageError(f"`--from`: {iso_time(low)} has not come yet", help=TODAY)
        if low is not None and high is not None and low >= high:
            raise UsageError("`--from` must be before `--to`")
        return Span(low, high)
    given = [found for found in positions if found]
    if len(given) < sum(text is not None for text in (start, end)):
        raise UsageError("`--from` and `--to` must both be times or both be positions `PARTITION:OFFSET`")
    if len({int(found[1]) for found in given}) > 1:
        raise UsageError("`--from` and `--to` must name the same partition")
    first, last = (int(found[2]) if found else None for found in positions)
    if first is not None and last is not None and first >= last:
        raise UsageError("`--from` must be before `--to`")
    return Span(first, last, int(given[0][1]))


def check_partition(log: Log, span: Span) -> None:
    """Raises `UsageError` for a position in a partition that isn't there."""
    count = log.partitions(REQUESTS)
    if span.partition is not None and span.partition >= count:
        raise UsageError(f"there is no partition {span.partition}", help=f"this log has 0 to {count - 1}")


def parse_time(text: str, option: str, *, now_ms: int, whole: bool = False) -> int:
    """A time (UTC) in ms; `whole`: the one after the day, minute or second that was written. Raises `UsageError`."""
    operator = "<=" if whole else ">="
    quoted = text.replace("'", "''")
    try:
        expression = parse_query(f"created_at {operator} '{quoted}'", now_ms=now_ms).expression
    except BadQuery as error:
        raise UsageError(
            f"`{option}`: {error.message}",
            help="a time in UTC ('2024-12-19', '2024-12-19 14:00', '14:25'), or a position like `3:1000`",
        ) from None
    assert isinstance(expression, Range)
    bound = expression.high if whole else expression.low
    assert isinstance(bound, int)
    return bound


def _offset_at(log: Log, partition: int, time_ms: int) -> int:
    """The first request offset at or after a time. Where requests have expired, their records still tell."""
    begin = log.begin(REQUESTS, partition)
    first = at_offset(log, REQUESTS, partition, begin)
    if first is not None and first.time_ms < time_ms:
        return first_from(log, REQUESTS, partition, time_ms, lambda message: message.time_ms)
    record = log.read(RECORDS, partition, first_from(log, RECORDS, partition, time_ms, _created), 1)
    offset = request_offset(record[0]) if record else None
    return begin if offset is None else min(offset, begin)


def _created(record: Message) -> int | None:
    try:
        return time_ms_of(object_in(record)["created_at"])
    except (KeyError, TypeError, ValueError):
        return None
