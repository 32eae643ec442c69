"""Samples and limits: what is drawn stands for everything, and the same seed draws the same."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streams import merkle
from streams.backtest.chosen import Chosen
from streams.backtest.gaps import Runs
from streams.backtest.range_root import RangeRoot
from streams.backtest.select import Latest, Stratified, shares

SIZES = st.dictionaries(st.sampled_from(["ALLOW", "DENY", "ESCALATE", "ABSTAIN"]), st.integers(1, 200), min_size=1)


@given(SIZES, st.integers(1, 300))
def test_shares_fill_the_sample_as_evenly_as_can_be(sizes: dict[str, int], count: int) -> None:
    out = shares(sizes, count)
    assert all(1 <= out[name] <= sizes[name] for name in sizes)
    assert sum(out.values()) == min(max(count, len(sizes)), sum(sizes.values()))
    cut = [out[name] for name in sizes if out[name] < sizes[name]]
    assert not cut or max(cut) - min(cut) <= 1


@given(SIZES, st.integers(1, 60), st.integers(0, 5))
def test_weights_carry_the_sample_back_to_the_whole(sizes: dict[str, int], count: int, seed: int) -> None:
    def drawn() -> tuple[Chosen, dict[str, float]]:
        sample = Stratified(count, seed)
        for verdict, size in sizes.items():
            for number in range(size):
                sample.add(f"{verdict}-{number:04d}", verdict)
        return sample.of(Chosen())

    chosen, weights = drawn()
    assert drawn() == (chosen, weights)
    assert chosen.ids is not None
    kept = Counter(name.partition("-")[0] for name in chosen.ids)
    for verdict, size in sizes.items():
        assert abs(kept[verdict] * weights[verdict] - size) < 1e-6


def test_every_decision_is_as_likely_as_any_other_of_its_verdict() -> None:
    found: Counter[str] = Counter()
    for seed in range(400):
        sample = Stratified(5, seed)
        for number in range(20):
            sample.add(f"{number:02d}", "ALLOW")
        found.update(sample.of(Chosen())[0].ids or ())
    assert len(found) == 20
    assert all(60 < count < 140 for count in found.values())  # 100 expected, s = 8.7


@given(st.lists(st.text("0123456789", min_size=4, max_size=4), unique=True), st.integers(1, 10))
def test_the_latest_are_those_with_the_highest_ids(names: list[str], count: int) -> None:
    latest = Latest(count)
    for name in names:
        latest.add(name)
    since = latest.of(Chosen()).since
    expected = sorted(names)[-count:]
    assert sorted(name for name in names if since is not None and name >= since) == expected


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_a_growing_tree_has_the_root_of_the_whole(leaves: list[bytes]) -> None:
    tree = merkle.Growing()
    for number, leaf in enumerate(leaves):
        tree.add(merkle.leaf_hash(leaf))
        assert tree.root() == merkle.root(leaves[: number + 1])
    tree = merkle.Growing.from_dict(tree.as_dict())
    assert tree.root() == merkle.root(leaves)


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=3)), max_size=30), st.data())
def test_the_range_root_depends_on_records_and_their_order_alone(records: list[tuple[int, bytes]], data: object) -> None:
    whole, parted = RangeRoot(), RangeRoot()
    for partition in range(3):
        hashes = [merkle.leaf_hash(leaf) for place, leaf in records if place == partition]
        whole.add(partition, b"".join(hashes))
    for partition, leaf in records:  # partitions interleaved, one by one
        parted.add(partition, merkle.leaf_hash(leaf))
    assert whole.text() == parted.text() == RangeRoot.from_dict(parted.as_dict()).text()
    if records:
        parted.add(0, merkle.leaf_hash(b"one more"))
        assert whole.text() != parted.text()


@given(st.lists(st.integers(0, 60), unique=True), st.integers(0, 30), st.integers(0, 40))
def test_gaps_are_what_no_record_speaks_of(offsets: list[int], first: int, more: int) -> None:
    runs, last = Runs(), first + more
    for offset in sorted(offsets):
        runs.add(0, [(offset, offset)])
    runs = Runs.from_dict(runs.as_dict())
    found = [at for low, high in runs.gaps(0, first, last) for at in range(low, high + 1)]
    assert found == [at for at in range(first, last) if at not in offsets]
    assert runs.repeated() == []
    runs.add(0, [(0, 0)])
    assert len(runs.repeated()) == (1 if offsets else 0)
