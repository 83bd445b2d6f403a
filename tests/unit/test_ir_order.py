"""Order and feedback depend on names and edges alone."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nmtool.ir.order import Edge, cyclic_parts, feedback, natural, reachable, topological


def edges(text: str) -> list[Edge]:
    return [(e[0], e[1]) for e in (pair.split(">") for pair in text.split())]


def names(found: list[Edge]) -> set[str]:
    return {n for e in found for n in e}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[Edge]]:
    n = draw(st.integers(1, 9))
    nodes = [f"n{i}" for i in range(n)]
    pairs = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes))
    return nodes, draw(st.lists(pairs, max_size=25, unique=True))


def test_numbers_count_by_value() -> None:
    mixed = ["fc10", "fc2", "10", "9", "a", "fc2b", "fc", "01_fc", "002"]
    assert sorted(mixed, key=natural) == ["01_fc", "002", "9", "10", "a", "fc", "fc2", "fc2b", "fc10"]


@given(graphs())
def test_strong_components_are_those_of_scipy(graph: tuple[list[str], list[Edge]]) -> None:
    nodes, found = graph
    at = {n: i for i, n in enumerate(nodes)}
    rows, cols = [at[a] for a, _ in found], [at[b] for _, b in found]
    matrix = coo_matrix((np.ones(len(found)), (rows, cols)), (len(nodes), len(nodes)))
    _, labels = connected_components(matrix, connection="strong")
    groups = [{n for n in nodes if labels[at[n]] == k} for k in set(labels)]
    wanted = [g for g in groups if len(g) > 1 or any((n, n) in found for n in g)]
    assert sorted(map(sorted, cyclic_parts(nodes, found))) == sorted(map(sorted, wanted))


@given(graphs(), st.randoms())
def test_feedback_breaks_every_cycle_at_neurons_whatever_the_order(
    graph: tuple[list[str], list[Edge]], rng: random.Random
) -> None:
    nodes, found = graph
    neurons = {n for n in nodes if int(n[1:]) % 2}
    cut, loops = feedback("n0", nodes, found, neurons)
    rest = [e for e in found if e not in cut]
    assert {a for a, _ in cut} <= neurons
    assert bool(loops) == bool(cyclic_parts(nodes, [e for e in found if e[0] not in neurons]))
    if not loops:
        assert sorted(topological(nodes, rest)) == sorted(nodes)
    shuffled, other = nodes[:], found[:]
    rng.shuffle(shuffled)
    rng.shuffle(other)
    assert feedback("n0", shuffled, other, neurons)[0] == cut
    assert topological(shuffled, [e for e in other if e not in cut]) == topological(nodes, rest)


@pytest.mark.parametrize(
    ("text", "neurons", "wanted"),
    [
        ("in>w w>n n>r r>n n>out", "n", "n>r"),
        ("in>w w>n n>n n>out", "n", "n>n"),
        ("in>a a>b b>c c>a c>out", "b", "b>c"),
        ("in>f f>n n>g g>m m>h h>n m>out", "n m", "m>h"),
        ("in>f f>n n>g g>m m>h h>n m>r r>m m>out", "n m", "m>h m>r"),
        ("in>c c>n n>r r>c n>out", "n", "n>r"),
    ],
    ids=[
        "recurrent",
        "self",
        "into a synapse",
        "two layers",
        "two layers and self",
        "back into the convolution",
    ],
)
def test_where_loops_close(text: str, neurons: str, wanted: str) -> None:
    found = edges(text)
    cut, loops = feedback("in", names(found), found, set(neurons.split()))
    assert not loops
    assert list(cut) == sorted(edges(wanted))


def test_a_loop_without_neuron() -> None:
    found = edges("in>a a>b b>a b>out")
    assert feedback("in", names(found), found, set())[1] == ({"a", "b"},)


def test_distance() -> None:
    assert reachable("a", edges("a>b b>c a>c c>d e>a")) == {"a": 0, "b": 1, "c": 1, "d": 2}
