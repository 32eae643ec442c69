"""Saved queries that are evaluated as rates: kept, checked on a schedule, told to Prometheus."""

from lumyn.watches.check import check, check_all
from lumyn.watches.store import history, list_watches, redact_watch, remove_watch, save_watch, watch_named
from lumyn.watches.watch import Watch, make_watch

__all__ = [
    "Watch",
    "check",
    "check_all",
    "history",
    "list_watches",
    "make_watch",
    "redact_watch",
    "remove_watch",
    "save_watch",
    "watch_named",
]
