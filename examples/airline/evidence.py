"""What a gateway could look up before an action runs, as facts for the rules; and the money at stake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from recordings import Airline, Conversation, Row, failed, user_of

NOW = datetime(2024, 5, 15, 15)  # the domain's fixed present, US Eastern like every time in the recordings
BAG_FEE, INSURANCE_FEE = 50, 30
FREE_BAGS = {
    "regular": {"basic_economy": 0, "economy": 1, "business": 2},
    "silver": {"basic_economy": 1, "economy": 2, "business": 3},
    "gold": {"basic_economy": 2, "economy": 3, "business": 3},
}
COMPENSATION = {"cancelled": 100, "delayed": 50}  # dollars a passenger

_REASONS = (
    ("airline_cancelled", r"cancell?ed by the airline|airline (has )?cancell?ed"),
    ("health", r"\b(sick|ill|illness|health|medical|hospital)\b"),
    ("weather", r"\b(weather|storm|hurricane|snow)\b"),
    ("mistake", r"\bmistake\b"),
    ("give_up_seat", r"(release|free up) (my|the) seat|make my seat available"),
    ("personal", r"personal (reason|decision)"),
    ("change_of_plan", r"change (of|in) (travel )?plans?|plans have changed"),
    ("not_given", r"no specific reason|don't have specific reasons|other reasons"),
)
_CARD = re.compile(r"(?:ending in|my) (\d{4})\b")
_BUDGET = re.compile(r"up to \$(\d+)|\$(\d+) (?:budget|limit)")
_AS_BOOKED = ("cabin", "destination", "flight_type", "insurance", "origin")
_PAYMENT_KINDS = ("certificate", "credit_card", "gift_card")


def evidence(row: Row, talk: Conversation) -> dict[str, Any]:
    """The facts to decide on. What can't be known is left out, never guessed."""
    facts: dict[str, Any] = {}
    reservation = talk.reservation(row)
    profile = talk.airline.users.get(user_of(row), {})
    if profile:
        facts["membership"] = profile["membership"]
    if reservation:
        facts |= _reservation_facts(reservation, user_of(row))
    if row["tool"] == "cancel_reservation":
        facts |= _one("stated_reason", _stated_reason(talk.said))
    if row["tool"] == "send_certificate":
        facts |= _certificate_facts(row, reservation, talk.said)
    if row["tool"] == "update_reservation_flights":
        facts |= _change_facts(row, reservation, talk.airline)
    if row["tool"] == "update_reservation_passengers" and "passengers" in reservation:
        facts["passengers_added"] = len(row["arguments"]["passengers"]) - len(reservation["passengers"])
    if row["tool"] == "book_reservation":
        facts |= _booking_facts(row, talk.airline)
    if "total_baggages" in row["arguments"] and profile:
        facts |= _bag_facts(row, reservation, profile["membership"])
    if profile and _payments(row):
        facts |= _payment_facts(row, profile, talk)
    charge = facts.get("payment_total", facts.get("price_difference"))
    budgets = [int(a or b) for message in talk.said for a, b in _BUDGET.findall(message)]
    if budgets and charge is not None:
        facts |= {"stated_budget": budgets[-1], "over_budget": charge > budgets[-1]}
    return facts


def amount(row: Row, talk: Conversation, facts: Mapping[str, Any]) -> int | None:
    """Dollars at stake; None when they can't be told."""
    arguments, reservation = row["arguments"], talk.reservation(row)
    match row["tool"]:
        case "book_reservation":
            return int(facts["payment_total"])
        case "send_certificate":
            return int(arguments["amount"])
        case "cancel_reservation":
            paid = reservation.get("payment_history")
            return None if paid is None else sum(payment["amount"] for payment in paid)
        case "update_reservation_flights":
            difference = facts.get("price_difference")
            return None if difference is None else abs(int(difference))
        case "update_reservation_baggages" if "nonfree_baggages" in reservation:
            return int(BAG_FEE * max(0, arguments["nonfree_baggages"] - reservation["nonfree_baggages"]))
        case "update_reservation_passengers":
            return 0
    return None


def _one(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


def _reservation_facts(reservation: Mapping[str, Any], user: str) -> dict[str, Any]:
    facts = {name: reservation[name] for name in _AS_BOOKED if name in reservation}
    if "user_id" in reservation:
        facts["owns_reservation"] = reservation["user_id"] == user
    if "created_at" in reservation:
        age = NOW - datetime.fromisoformat(reservation["created_at"])
        facts["booking_age_hours"] = round(age.total_seconds() / 3600, 1)
    if "passengers" in reservation:
        facts["passengers"] = len(reservation["passengers"])
    if "flights" in reservation:
        days = [(date.fromisoformat(flight["date"]) - NOW.date()).days for flight in reservation["flights"]]
        facts |= {"segments": len(days), "segments_flown": sum(day < 0 for day in days)}
        facts["days_to_departure"] = min(days)
    return facts


def _stated_reason(said: Sequence[str]) -> str | None:
    words = " ".join(said).replace("’", "'").lower()
    return next((reason for reason, pattern in _REASONS if re.search(pattern, words)), None)


def _certificate_facts(row: Row, reservation: Mapping[str, Any], said: Sequence[str]) -> dict[str, Any]:
    words = " ".join(said).lower()
    complaint = "delayed" if "delay" in words else "cancelled" if "cancel" in words else None
    facts = _one("complaint_about", complaint)
    if complaint and "passengers" in reservation:
        allowance = COMPENSATION[complaint] * len(reservation["passengers"])
        facts |= {"compensation_allowed": allowance, "over_allowance": row["arguments"]["amount"] - allowance}
    return facts


def _change_facts(row: Row, reservation: Mapping[str, Any], airline: Airline) -> dict[str, Any]:
    arguments = row["arguments"]
    facts: dict[str, Any] = {}
    if "cabin" in reservation:
        facts["cabin_changed"] = arguments["cabin"] != reservation["cabin"]
    if "flights" not in reservation:
        return facts
    before = {(flight["flight_number"], flight["date"]) for flight in reservation["flights"]}
    after = {(flight["flight_number"], flight["date"]) for flight in arguments["flights"]}
    facts["flights_changed"] = before != after
    old = airline.fare(reservation["flights"], reservation["cabin"])
    new = airline.fare(arguments["flights"], arguments["cabin"])
    if old is not None and new is not None and "passengers" in reservation:
        facts["price_difference"] = (new - old) * len(reservation["passengers"])
    return facts


def _booking_facts(row: Row, airline: Airline) -> dict[str, Any]:
    arguments = row["arguments"]
    paid = sum(payment["amount"] for payment in arguments["payment_methods"])
    kinds = [_kind(payment["payment_id"]) for payment in arguments["payment_methods"]]
    facts: dict[str, Any] = {f"{kind}s_used": kinds.count(kind) for kind in _PAYMENT_KINDS}
    facts |= {"payment_total": paid, "passengers": len(arguments["passengers"])}
    price = _price(row, paid, airline)
    return facts if price is None else facts | {"price_total": price, "payment_difference": paid - price}


def _price(row: Row, paid: int, airline: Airline) -> int | None:
    """The price at that moment: as the tool named it, as it was accepted, or from the fares."""
    named = re.search(r"total price is (\d+)", row["tool_reply"])
    if named:
        return int(named[1])
    if not failed(row):
        return paid
    arguments = row["arguments"]
    fare = airline.fare(arguments["flights"], arguments["cabin"])
    each = INSURANCE_FEE if arguments["insurance"] == "yes" else 0
    if fare is None:
        return None
    return (fare + each) * len(arguments["passengers"]) + BAG_FEE * int(arguments["nonfree_baggages"])


def _bag_facts(row: Row, reservation: Mapping[str, Any], membership: str) -> dict[str, Any]:
    arguments = row["arguments"]
    cabin = arguments.get("cabin") or reservation.get("cabin")
    people = arguments.get("passengers") or reservation.get("passengers")
    if cabin is None or people is None:
        return {}
    free = FREE_BAGS[membership][cabin] * len(people)
    owed = max(0, arguments["total_baggages"] - free)
    return {"bags_free": free, "bags_overcharged": arguments["nonfree_baggages"] - owed}


def _payments(row: Row) -> list[str]:
    arguments = row["arguments"]
    several = [payment["payment_id"] for payment in arguments.get("payment_methods", ())]
    return several or ([arguments["payment_id"]] if "payment_id" in arguments else [])


def _kind(payment_id: str) -> str:
    return payment_id.rpartition("_")[0]


def _payment_facts(row: Row, profile: Mapping[str, Any], talk: Conversation) -> dict[str, Any]:
    methods, used = profile["payment_methods"], _payments(row)
    on_file = all(payment in methods and payment not in talk.spent for payment in used)
    facts: dict[str, Any] = {"payment_on_file": on_file}
    if "payment_id" in row["arguments"]:
        facts["payment_kind"] = _kind(used[0])
    cards = [methods[payment]["last_four"] for payment in used if "last_four" in methods.get(payment, {})]
    named = [digits for message in talk.said for digits in _CARD.findall(message)]
    if cards and named:
        facts["card_as_named"] = set(cards) <= set(named)
    return facts
