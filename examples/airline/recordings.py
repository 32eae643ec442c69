"""The airline's data base and a conversation's progress, as far as the recordings show them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

_TEXT = re.compile(r'"(user_id|origin|destination|flight_type|cabin)": "(\w+)"')
_FLIGHT = re.compile(r'\{[^{}]*"flight_number"[^{}]*\}')


def failed(row: Row) -> bool:
    """Whether the airline's tool refused the action."""
    return str(row["tool_reply"]).startswith("Error")


def user_of(row: Row) -> str:
    """The id of the user the conversation is with."""
    if "user_id" in row["arguments"]:
        return str(row["arguments"]["user_id"])
    named = re.search(r'"user_id": "(\w+)"', row["tool_reply"])
    return named[1] if named else str(row["reservation"]["user_id"])


@dataclass
class Airline:
    """The data base at the start of a conversation, as far as the recordings show it."""

    reservations: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    fares: dict[tuple[str, str, str], int] = field(default_factory=dict)

    @classmethod
    def seen_in(cls, rows: Sequence[Row]) -> Airline:
        """Collect every reservation, profile and fare that a recording contains."""
        airline = cls()
        for row in rows:
            reservation = row["reservation"]
            if reservation:
                airline.reservations[reservation["reservation_id"]] = reservation
                airline._learn(reservation["flights"], reservation["cabin"])
            if row["user"]:
                airline.users[user_of(row)] = row["user"]
            if "flights" in row["arguments"] and not failed(row):
                airline._learn(_flights(row["tool_reply"]), row["arguments"]["cabin"])
        return airline

    def _learn(self, flights: Sequence[Mapping[str, Any]], cabin: str) -> None:
        for flight in flights:
            self.fares.setdefault((flight["flight_number"], flight["date"], cabin), flight["price"])

    def fare(self, flights: Sequence[Mapping[str, Any]], cabin: str) -> int | None:
        """What one passenger pays for these flights; None when a fare was never seen."""
        prices = [self.fares.get((flight["flight_number"], flight["date"], cabin)) for flight in flights]
        return None if None in prices else sum(price for price in prices if price is not None)


@dataclass
class Conversation:
    """One recorded conversation so far: what the user said, and what earlier actions have changed."""

    airline: Airline
    said: list[str] = field(default_factory=list)
    writes: int = 0
    refusals: int = 0
    reservations: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)

    def hear(self, window: Sequence[str]) -> None:
        """Add a recorded window of the last messages to what was said before it."""
        lengths = range(min(len(window), len(self.said)), -1, -1)
        overlap = next(n for n in lengths if list(window[:n]) == self.said[len(self.said) - n :])
        self.said += window[overlap:]

    def reservation(self, row: Row) -> dict[str, Any]:
        """The reservation the action is about, before it; only what is known of it."""
        wanted = row["arguments"].get("reservation_id")
        if wanted is None:
            looked_up = row["reservation"] if row["tool"] == "send_certificate" else None
            return dict(looked_up or {})
        if wanted not in self.reservations:
            known = self.airline.reservations.get(wanted)
            self.reservations[wanted] = deepcopy(known) if known else _from_reply(row)
        return self.reservations[wanted]

    def record(self, row: Row) -> None:
        """Take over what the action has changed."""
        self.writes += 1
        if failed(row):
            self.refusals += 1
            return
        arguments = row["arguments"]
        for payment in arguments.get("payment_methods", ()):
            if payment["payment_id"].startswith("certificate"):
                self.spent.add(payment["payment_id"])
        reservation = self.reservations.get(arguments.get("reservation_id", ""))
        if reservation is not None and row["tool"] == "update_reservation_flights":
            reservation["cabin"] = arguments["cabin"]
            reservation["flights"] = arguments["flights"]


def _flights(reply: str) -> list[dict[str, Any]]:
    """The flights in a tool's reply, which the recording cuts after 400 characters."""
    return [json.loads(found) for found in _FLIGHT.findall(reply)]


def _from_reply(row: Row) -> dict[str, Any]:
    """What a reply says of a reservation that no recording shows: what the action itself leaves alone."""
    reply = row["tool_reply"]
    known: dict[str, Any] = {}
    for name, value in _TEXT.findall(reply):
        known.setdefault(name, value)
    if row["tool"] == "cancel_reservation" and '"passengers"' in reply:
        known["flights"] = _flights(reply)
    return known
