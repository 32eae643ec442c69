"""A sample of records: as many as asked, each as likely as any other, from short logs and from long ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from embedded import Embedded, policy, request

from streams import sample
from streams.sample import sample_records


@pytest.fixture
def home(tmp_path: Path) -> Embedded:
    home = Embedded(tmp_path, policy())
    for number in range(60):
        home.agent.decide([request(f"r{number}", amount=number)])
    return home


def test_all_are_wanted_and_fewer_than_asked(home: Embedded) -> None:
    found = sample_records(home.log, 100, 1, lambda record: True)
    assert (len(found.records), found.of) == (60, 60)
    names = [record["decision_id"] for record in found.records]
    assert names == sorted(set(names))


def test_only_wanted_ones_are_drawn_and_counted(home: Embedded) -> None:
    found = sample_records(home.log, 5, 1, lambda record: record["request"]["action"]["amount"] % 2 == 0)
    assert (len(found.records), found.of) == (5, 30)
    assert all(record["request"]["action"]["amount"] % 2 == 0 for record in found.records)


@pytest.mark.parametrize("few", [100_000, 10])
def test_each_is_as_likely_as_any_other(home: Embedded, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """From a log that is read whole, and from one that is too long for that."""
    monkeypatch.setattr(sample, "_FEW", few)
    drawn: Counter[str] = Counter()
    for seed in range(300):
        found = sample_records(home.log, 10, seed, lambda record: True)
        assert len({record["decision_id"] for record in found.records}) == 10
        assert found.of == (60 if few > 60 else None)
        drawn.update(record["decision_id"] for record in found.records)
    assert len(drawn) == 60
    assert min(drawn.values()) >= 25 and max(drawn.values()) <= 80  # 50 expected, 6.5 standard deviation


def test_the_same_seed_draws_the_same(home: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    for few in (100_000, 10):
        monkeypatch.setattr(sample, "_FEW", few)
        assert sample_records(home.log, 7, 5, bool) == sample_records(home.log, 7, 5, bool)


def test_a_long_log_with_few_wanted_gives_what_was_found(home: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_FEW", 10)
    found = sample_records(home.log, 20, 2, lambda record: record["request"]["action"]["amount"] < 3)
    assert len(found.records) == 3
