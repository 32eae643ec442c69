"""The exact index against int64 arithmetic over every point, at a size where its short cuts are taken."""

from __future__ import annotations

import random

import numpy as np
import pytest
from memory_model import part

from memory_service.blocks import BLOCKS, SLICES
from memory_service.exact_index import ExactIndex
from memory_service.point import OPEN, Point
from memory_service.store import Search
from memory_service.vectoriser import query_of

WEIGHTS = {
    "usual": {"text": 0.3, "categories": 0.4, "numbers": 0.3},
    "nearly all text, so that little is known without it": {"text": 0.98, "categories": 0.01, "numbers": 0.01},
    "no categories": {"text": 0.5, "categories": 0, "numbers": 0.5},
    "no numbers": {"text": 0.5, "categories": 0.5, "numbers": 0},
}


def remembered(vectoriser, count: int, *, seed: int, tiers: int) -> list[Point]:
    """Points of few texts and categories and many numbers, in no order of their ids; some ids are long."""
    chance = random.Random(seed)
    parts = [
        part(
            chance.choice(["late refund", "send the parcel again", None]),
            f"tier {chance.randrange(tiers)}",
            chance.choice([None, round(chance.lognormvariate(4, 1), 2), 50]),
            chance.choice([0.1, chance.random()]),
        )
        for _ in range(count)
    ]
    names = [f"{number:026d}" if number % 50 else f"a longer name, {number:026d}" for number in range(count)]
    chance.shuffle(names)
    return [
        Point(
            memory_id=name,
            tenant="acme",
            action_type="refund",
            meaning=chance.choice(["harmful", "fine", "neutral"]),
            label=chance.choice(["failure", "success"]),
            verdict=chance.choice(["ALLOW", "DENY"]),
            rules=(),
            amount=chance.choice([None, 20, 100, 20000]),
            contested=chance.random() < 0.1,
            labeller="ann",
            summary="",
            from_version=version,
            to_version=OPEN,
            vector=vector.values,
        )
        for version, (name, vector) in enumerate(zip(names, vectoriser.vectorise(parts), strict=True), 1)
    ]


def dot(one, other) -> int:
    return int(one.astype(np.int64) @ other.astype(np.int64))


def nearest(points, query) -> list[tuple[int, str]]:
    """(dot, memory_id) of some points, the nearest first."""
    found = [(dot(p.vector, query), p.memory_id) for p in points]
    return sorted(found, key=lambda one: (-one[0], one[1]))


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("tiers", [1, 40])
def test_short_cuts_find_what_every_point_multiplied_out_gives(vectoriser, weights, tiers):
    points = remembered(vectoriser, 1500, seed=tiers, tiers=tiers)
    index = ExactIndex()
    index.put(points[:700])
    index.put(points[700:])
    asked = [part("late refund", "tier 0", amount, risk) for amount, risk in ((50, 0.1), (80, 0.5), (None, 0.9))]
    queries = [query_of(vector, weights) for vector in vectoriser.vectorise(asked)]
    searches = [
        Search("acme", "refund", version, query, 100, 3, 5, 64)
        for query in queries
        for version in (len(points), 900, 40)
    ]
    together = index.search(searches)
    for search, found in zip(searches, together, strict=True):
        assert index.search([search]) == [found]
        check(search, found, [p for p in points if p.from_version <= search.version])


def check(search, found, held) -> None:
    full, without_text = search.query.full, search.query.without_text
    known = {p.memory_id: p for p in held if p.meaning != "neutral"}
    near = nearest(known.values(), full)[:64]
    assert found.nearby == tuple((dot, known[name].meaning == "harmful") for dot, name in near)
    for label, hits in (("failure", found.failures), ("success", found.successes)):
        assert [(hit.dot, hit.point.memory_id) for hit in hits] == nearest([p for p in held if p.label == label], full)[
            :5
        ]
    gated = [p for p in held if p.meaning == "harmful" and (p.amount is None or p.amount <= 300)]
    assert (found.harmful.dot, found.harmful.point.memory_id) == nearest(gated, full)[0]
    bare = found.harmful_without_text
    assert (bare.dot, bare.point.memory_id) == nearest(gated, without_text)[0]
    vector = next(p.vector for p in held if p.memory_id == bare.point.memory_id)
    assert bare.dots == tuple(dot(vector[SLICES[name]], without_text[SLICES[name]]) for name in BLOCKS)
