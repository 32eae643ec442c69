"""A memory profile's file: what is wrong is said all at once, where it stands; what is right comes out as written."""

from __future__ import annotations

import pytest

from memory_service.profile import MemoryProfile
from schemas.errors import PolicyInvalid
from streams.policy.check_profile import load_profile

GOOD = """
profile: shop
text: [evidence.note]
categories: [context.tier, evidence.code]
leave_out: [evidence.debug]
keep: [evidence.country_id]
fx: {EUR: 1.08, JPY: 0.0065}
"""


def problems(source: str) -> list[str]:
    with pytest.raises(PolicyInvalid) as caught:
        load_profile(source.encode(), name="p.yml")
    return caught.value.problems


def test_a_profile_is_read_as_written():
    profile = load_profile(GOOD.encode(), name="p.yml")
    assert profile == MemoryProfile(
        "shop",
        ("evidence.note",),
        ("context.tier", "evidence.code"),
        ("evidence.debug",),
        ("evidence.country_id",),
        (("EUR", 1.08), ("JPY", 0.0065)),
    )
    assert MemoryProfile.from_dict(profile.as_dict()) == profile


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("text: []", "p.yml:1:1: a memory profile has a name"),
        ("profile: a b", "p.yml:1:10: `profile` `a b` is not a name"),
        ("profile: a\ntexts: []", "p.yml:2:1: unknown key `texts`; did you mean `text`"),
        ("profile: a\ntext: evidence.x", "p.yml:2:7: `text` takes a list"),
        ("profile: a\ntext: [subject.id]", "p.yml:2:8: path of `text` `subject.id` is not a path below"),
        ("profile: a\ntext: [evidence]", "is not a path below"),
        ("profile: a\ntext: [evidence.x]\nkeep: [evidence.x]", "p.yml:3:8: `evidence.x` stands under `text` already"),
        ("profile: a\nfx: {EUR: -1}", "p.yml:2:11: rate of `EUR` must be above 0"),
        ("profile: a\nfx: {USD: 2}", "must be 1"),
        ("- a", "a memory profile takes a mapping"),
        ("profile: [", "p.yml:"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(source, said):
    assert any(said in one for one in problems(source)), problems(source)


def test_everything_wrong_is_said_at_once():
    assert len(problems("profile: a b\ntext: [x]\nfx: {eur: 1}\nnonsense: 1")) == 4
