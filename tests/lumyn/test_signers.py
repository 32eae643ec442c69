"""Whose packs a home believes: the same before and after it has a key of its own, or it says what has changed."""

from __future__ import annotations

from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn.home import KEY_FILE
from lumyn.wiring import close_homes

pytest_plugins = ("inside_plugin",)


@pytest.fixture
def theirs(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pack that another home signed; its key's id. This home has decided, and has no key."""
    decision = inside.decide(refund(20))["decision_id"]
    inside.run("export", decision, "--pack", "--out", "theirs.zip")
    key_id = inside.json("keys", "list", "--json")[0]["key_id"]
    close_homes()
    inside.home.rename(inside.folder / "other-home")
    inside.decide(refund(30))
    assert not (inside.home / KEY_FILE).exists()
    return str(key_id)


def signature(inside: Inside, code: int, *more: str) -> str:
    told: dict[str, Any] = inside.json("verify", "theirs.zip", *more, "--json", code=code)
    (found,) = [check["detail"] for check in told["checks"] if check["name"] == "signature"]
    return str(found)


def test_where_no_key_is_known_a_sound_pack_is_taken_and_it_is_said_that_nobody_knows_whose(
    inside: Inside, theirs: str
) -> None:
    assert signature(inside, 0) == f"by key {theirs}; no key is known here to say whose that is"
    assert "no key is known here to say whose that is" in inside.run("replay", "theirs.zip").stderr


@pytest.mark.parametrize("makes", [("checkpoint",), ("keys", "show"), ("export", "--limit", "1")])
def test_a_home_that_gets_a_key_says_that_it_refuses_others_from_then_on(
    inside: Inside, theirs: str, makes: tuple[str, ...]
) -> None:
    done = inside.run(*makes)
    own = inside.json("keys", "list", "--json")[0]["key_id"]
    assert f"made this home's signing key, {own}" in done.stderr
    assert "refused here" in done.stderr and "lumyn keys trust" in done.stderr
    assert "signing key" not in inside.run(*makes).stderr, "it is told once"
    why = signature(inside, 3)
    assert f"by key {theirs}, which this home does not trust: it has a key of its own" in why
    assert "whatever it took before it had any key" in why
    assert "`lumyn keys trust PACK`" in why and "`--trust-signer`" in why
    assert "does not trust: it has a key of its own" in inside.refused("replay", "theirs.zip", code=3)


def test_the_remedies_are_what_is_said(inside: Inside, theirs: str) -> None:
    inside.run("checkpoint")
    assert signature(inside, 0, "--trust-signer") == f"by key {theirs}, which this home does not trust; accepted for once"
    inside.run("replay", "theirs.zip", "--trust-signer")
    signature(inside, 3)
    inside.run("keys", "trust", "theirs.zip")
    assert signature(inside, 0) == f"by key {theirs}, which this home trusts"
    inside.run("replay", "theirs.zip")


def test_a_home_with_trusted_keys_alone_refuses_others_too_and_its_own_key_changes_nothing(
    inside: Inside, theirs: str
) -> None:
    inside.run("keys", "trust", "theirs.zip")
    assert "signing key" not in inside.run("checkpoint").stderr, "others were refused before already"
    assert signature(inside, 0) == f"by key {theirs}, which this home trusts"
    mine = inside.json("list", "--json")[0]["decision_id"]
    inside.run("export", mine, "--pack", "--out", "mine.zip")
    (found,) = [c for c in inside.json("verify", "mine.zip", "--json")["checks"] if c["name"] == "signature"]
    assert found["detail"].endswith("this home's own")
