"""`lumyn label` says what it taught: a success of a DENY counts against allowing what is like it."""

from __future__ import annotations

import pytest
from conftest_e2e import refund
from inside import Inside

pytest_plugins = ("inside_plugin",)

WRONG, RIGHT, NEITHER = "allowing it is wrong, and counts", "allowing it is right, and counts", "neither that allowing"


@pytest.mark.parametrize(
    ("amount", "risk", "more", "verdict", "told"),
    [
        (20, 0.1, ["--label", "failure"], "ALLOW", WRONG),
        (20, 0.1, ["--label", "success"], "ALLOW", RIGHT),
        (20, 0.9, ["--label", "success"], "DENY", WRONG),
        (20, 0.9, ["--label", "failure"], "DENY", RIGHT),
        (300, 0.1, ["--label", "success"], "ESCALATE", NEITHER),
        (300, 0.1, ["--label", "failure", "--should", "DENY"], "ESCALATE", WRONG),
    ],
)
def test_what_a_label_teaches_is_told(
    inside: Inside, amount: float, risk: float, more: list[str], verdict: str, told: str
) -> None:
    record = inside.decide(refund(amount, risk=risk))
    assert record["verdict"] == verdict
    out = inside.run("label", record["decision_id"], *more).stdout
    assert f"it was {verdict}: this says" in out and told in out


def test_a_note_and_a_retraction_teach_nothing(inside: Inside) -> None:
    name = inside.decide(refund(20))["decision_id"]
    for label in ("note", "retracted"):
        assert "this says" not in inside.run("label", name, "--label", label, "--summary", "x").stdout
