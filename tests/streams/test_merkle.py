"""Merkle trees: the known answers of RFC 6962's tests, and that a path proves its own leaf and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import merkle

# the inputs and roots of the reference implementation's test, google/certificate-transparency merkle_tree_test
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_reference_implementation(size):
    assert merkle.root(INPUTS[:size]).hex() == ROOTS[size]


def test_paths_are_those_of_the_rfcs_example():
    """RFC 9162, 2.1.5: seven leaves; the paths of d0, d3, d4 and d6 in its own names."""
    a, b, c, d, e, f, j = (merkle.leaf_hash(data) for data in INPUTS[:7])
    g, h, i = merkle.node_hash(a, b), merkle.node_hash(c, d), merkle.node_hash(e, f)
    k, l = merkle.node_hash(g, h), merkle.node_hash(i, j)  # noqa: E741
    assert merkle.root(INPUTS[:7]) == merkle.node_hash(k, l)
    assert merkle.inclusion_path(INPUTS[:7], 0) == [b, h, l]
    assert merkle.inclusion_path(INPUTS[:7], 3) == [c, g, l]
    assert merkle.inclusion_path(INPUTS[:7], 4) == [f, j, k]
    assert merkle.inclusion_path(INPUTS[:7], 6) == [i, k]


def leaves_of(size: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(size)]


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH as the RFC writes it down: split at the largest power of two below the size."""
    if len(leaves) < 2:
        return merkle.leaf_hash(leaves[0]) if leaves else hashlib.sha256().digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return merkle.node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


@pytest.mark.parametrize("size", range(71))
def test_every_leaf_of_every_size_is_proven_by_its_path(size):
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    assert root == by_definition(leaves)
    for index, data in enumerate(leaves):
        path = merkle.inclusion_path(leaves, index)
        assert merkle.root_from_path(data, index, size, path) == root
    for index in (-1, size):
        with pytest.raises(IndexError):
            merkle.inclusion_path(leaves, index)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 33, 64, 70])
def test_a_path_proves_no_other_leaf_and_no_other_place(size):
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    for index in range(size):
        path = merkle.inclusion_path(leaves, index)
        for other in range(-1, size + 2):
            if other != index:
                assert merkle.root_from_path(leaves[index], other, size, path) != root
            if 0 <= other < size and other != index:
                assert merkle.root_from_path(leaves[other], index, size, path) != root
        assert merkle.root_from_path(leaves[index] + b"x", index, size, path) != root
        assert merkle.root_from_path(leaves[index], index, size, [*path, root]) is None
        if path:
            assert merkle.root_from_path(leaves[index], index, size, path[:-1]) is None
            assert merkle.root_from_path(leaves[index], index, size, path[1:]) is None


@given(st.integers(1, 300), st.data())
def test_any_changed_bit_of_a_path_leads_elsewhere(size, data):
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(leaves, index)
    if not path:
        return
    step, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
    path[step] = (int.from_bytes(path[step], "big") ^ (1 << bit)).to_bytes(32, "big")
    assert merkle.root_from_path(leaves[index], index, size, path) != merkle.root(leaves)


@given(st.lists(st.binary(max_size=70), max_size=40), st.lists(st.binary(max_size=70), max_size=40))
def test_two_lists_have_one_root_only_when_they_are_the_same(one, other):
    assert (merkle.root(one) == merkle.root(other)) == (one == other)


@given(st.lists(st.binary(max_size=40), min_size=2, max_size=20), st.data())
def test_a_node_is_never_taken_for_a_leaf(leaves, data):
    """The second-preimage attack on trees without prefixes: two leaves' hashes given as one leaf."""
    at = data.draw(st.integers(0, len(leaves) - 2))
    joined = merkle.leaf_hash(leaves[at]) + merkle.leaf_hash(leaves[at + 1])
    assert merkle.root([*leaves[:at], joined, *leaves[at + 2 :]]) != merkle.root(leaves)
