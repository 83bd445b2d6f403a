"""Graphs as files hold them: structure, nesting, old versions, warnings, and what is written."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from nmtool.errors import ConfigError, FindingsError, ModelError
from nmtool.ir.graph import Graph, from_nir, from_tree, read, write
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics

ONE = np.ones(3)
MODEL = ModelSemantics(dt_s=1e-4)


def lif(n: int = 3, **changes: Any) -> nir.LIF:
    one = np.ones(n)
    return nir.LIF(**{"tau": 1e-3 * one, "r": 10 * one, "v_leak": 0 * one, "v_threshold": one} | changes)


def make(edges: str, dt_s: float | None = 1e-4, **nodes: Any) -> Graph:
    """Edges as ``in>fc fc>lif``; nodes named in, fc, fc2, lif, lif2, w, out have defaults."""
    defaults = {
        "in": nir.Input(np.array([3])),
        "out": nir.Output(np.array([3])),
        **{k: nir.Linear(np.eye(3)) for k in ("fc", "fc2", "w")},
        **{k: lif() for k in ("lif", "lif2")},
    }
    pairs = [tuple(e.split(">")) for e in edges.split()]
    used = {n: defaults[n] for e in pairs for n in e if n in defaults}
    graph = nir.NIRGraph({**used, **nodes}, pairs, type_check=False)
    return from_nir(graph, dt_s)


def warnings(g: Graph) -> str:
    return "\n".join(map(str, g.warnings))


def test_names_decide_about_the_order() -> None:
    nodes = {
        "in": nir.Input(np.array([3])), "fc10": nir.Linear(np.eye(3)), "fc9": nir.Linear(np.eye(3)), "lif": lif(),
        "w": nir.Linear(np.eye(3)), "out": nir.Output(np.array([3])),
    }  # fmt: skip
    edges = [
        ("in", "fc10"),
        ("in", "fc9"),
        ("fc10", "lif"),
        ("fc9", "lif"),
        ("lif", "w"),
        ("w", "lif"),
        ("lif", "out"),
    ]
    orders = set()
    for i, names in enumerate(itertools.islice(itertools.permutations(nodes), 0, 720, 90)):
        g = from_nir(
            nir.NIRGraph({n: nodes[n] for n in names}, edges[i % 7 :] + edges[: i % 7], type_check=False),
            1e-4,
        )
        orders.add((g.order(), g.feedback_edges, tuple(g.nodes)))
    order = ("in", "fc9", "fc10", "w", "lif", "out")
    assert orders == {(order, (("lif", "w"),), order)}


def test_predecessors_in_the_order_of_the_edges() -> None:
    g = make("in>fc in>fc2 fc2>lif fc>lif lif>out")
    assert g.predecessors("lif") == ("fc2", "fc")
    assert g.successors("in") == ("fc", "fc2")
    assert g.readout_source() == "lif"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make("in>fc fc>lif lif>out lif>no"), "NM105.*no node 'no', but the edge lif -> no"),
        (lambda: make("in>fc in>fc fc>lif lif>out"), "NM105.*in -> fc stands there twice"),
        (lambda: make("fc>lif lif>fc2 fc2>lif lif>out", w=nir.Linear(np.eye(3))), "NM105.*no Input node"),
        (lambda: make("in>fc fc>lif lif>w w>lif"), "NM105.*no Output node"),
        (lambda: make("in>lif lif>out", b=nir.Input(np.array([3]))), r"NM105.*2 Input nodes \(b, in\)"),
        (lambda: make("in>lif lif>out lif>b", b=nir.Output(np.array([3]))), r"NM105.*2 Output nodes \(b, out\)"),
        (lambda: make("in>lif lif>out lif>in"), "NM105.*edge lif -> in into it"),
        (lambda: make("in>lif lif>out out>lif"), "NM105.*edge out -> lif out of it"),
        (lambda: make("in>lif lif>out w>lif"), "NM105.*node w: is not reached from in"),
        (lambda: make("in>fc fc>w w>fc2 fc2>w w>lif lif>out"), "NM105.*nodes fc2, w: form a loop without a neuron"),
        (lambda: make("in>lif lif>out", lif=lif(4)), r"NM104.*node lif \(LIF\).*\[4\], its input has shape \[3\]"),
        (
            lambda: make("in>fc in>fc2 fc>lif fc2>lif lif>out", fc2=nir.Linear(np.ones((4, 3)))),
            r"NM104.*lif.*\[3\] from fc, \[4\] from fc2",
        ),
        (
            lambda: make("in>lif lif>w w>lif lif>out", w=nir.Linear(np.ones((2, 3)))),
            r"NM104.*lif.*takes \[3\], gets \[3\] from in, \[2\] from w",
        ),
        (lambda: make("in>lif lif>out", lif=lif(tau=-ONE)), "NM108.*tau is -1 s, must be positive"),
        (lambda: make("in>lif lif>out", lif=lif(tau=1e-5 * ONE)), "NM108.*shorter than the step.*scheme=exponential"),
        (lambda: make("in>lif lif>out", lif=lif(r=ONE * [1, np.nan, 1])), r"NM108.*r has 1 of 3.*first at \(1,\)"),
        (lambda: make("in>d d>lif lif>out", d=nir.Delay(-ONE)), "NM108.*delay is -1 s"),
    ],
    ids=range(17),
)  # fmt: skip
def test_unsound_graphs(build: Callable[[], Graph], message: str) -> None:
    with pytest.raises(FindingsError, match=message):
        build()


def test_all_findings_are_reported_at_once() -> None:
    with pytest.raises(FindingsError) as e:
        make(
            "in>lif lif>lif2 lif2>d d>out",
            lif=lif(r=ONE * np.inf),
            lif2=lif(tau=ONE * np.nan),
            d=nir.Delay(-ONE),
        )
    assert [(d.code, d.where) for d in e.value.findings] == [
        ("NM108", "node d (Delay)"),
        ("NM108", "node lif (LIF)"),
        ("NM108", "node lif2 (LIF)"),
    ]
    with pytest.raises(FindingsError) as e:
        make(
            "in>fc fc>lif lif>lif2 lif2>out",
            fc=nir.Affine(np.eye(3), np.ones(2)),
            lif=lif(4),
            lif2=lif(tau=-ONE),
        )
    assert [(d.code, d.where) for d in e.value.findings] == [("NM104", "node fc (Affine)")]
    with pytest.raises(FindingsError) as e:
        make(
            "in>lif lif>lif2 lif2>fc fc>out",
            lif=lif(tau=-ONE),
            lif2=lif(tau=-ONE),
            fc=nir.Linear(np.ones((2, 3))),
        )
    assert [(d.code, d.where) for d in e.value.findings] == [
        ("NM104", "node out (Output)"),
        ("NM108", "node lif (LIF)"),
        ("NM108", "node lif2 (LIF)"),
    ]
    assert e.value.exit_code == 3


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"type": "Softmax"}, "NM102.*'Softmax' is not a NIR node type"),
        ({"type": "CubaLif"}, "NM102.*Did you mean 'CubaLI'"),
        ({"x": {"type": "LIF"}}, "NM102.*node lif: has no type. A node name must not contain '/'"),
        ({"type": "LIF", "tau": ONE}, "NM103.*lacks the field 'r'"),
        ({"type": "Threshold", "threshold": ONE, "delta": ONE}, "NM103.*field 'delta' that nmtool does not know"),
        ({"type": "Threshold", "threshold": "high"}, "NM103.*threshold is str, must be real numbers"),
        ({"type": "Linear", "weight": ONE}, r"NM104.*weight has shape \(3,\)"),
        ({"type": "SumPool2d", "kernel_size": np.array([2, 0])}, "NM103.*kernel_size is"),
    ],
)  # fmt: skip
def test_nodes_that_are_refused(node: dict[str, Any], message: str) -> None:
    edges = np.array([["in", "lif"], ["lif", "out"]], object)
    ends = {k: {"type": t, "shape": np.array([3])} for k, t in (("in", "Input"), ("out", "Output"))}
    tree = {"node": {"type": "NIRGraph", "nodes": {**ends, "lif": node}, "edges": edges}}
    with pytest.raises(FindingsError, match=message):
        from_tree(tree, "x.nir", "")


@pytest.mark.parametrize("tree", [{}, {"a": np.zeros(2)}, {"node": np.zeros(2)}, {"node": {"type": "LIF"}}])
def test_other_hdf5(tree: dict[str, Any]) -> None:
    with pytest.raises((ModelError, FindingsError), match=r"NM101.*x\.nir"):
        from_tree(tree, "x.nir", "")


def test_a_nested_graph_is_flattened() -> None:
    ends = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    inner = nir.NIRGraph(
        {**ends, "lif": lif(), "w": nir.Linear(np.eye(3))},
        [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
    )
    nest = nir.NIRGraph(
        {**ends, "rnn": inner},
        [("input", "rnn"), ("rnn", "output")],
    )
    g = make("in>fc fc>sub sub>out", sub=nest)
    assert g.order() == ("in", "fc", "sub.rnn.w", "sub.rnn.lif", "out")
    assert g.feedback_edges == (("sub.rnn.lif", "sub.rnn.w"),)


def test_a_nested_graph_with_two_outputs_is_refused() -> None:
    nodes = {"i": nir.Input(np.array([3])), "a": nir.Output(np.array([3])), "b": nir.Output(np.array([3]))}
    inner = nir.NIRGraph(nodes, [("i", "a"), ("i", "b")], type_check=False)
    with pytest.raises(FindingsError, match="NM105.*node sub: is a nested graph with 1 inputs and 2 outputs"):
        make("in>sub sub>lif lif>out", sub=inner)


def test_an_old_file(tmp_path: Path) -> None:
    """Nodes as a numbered list, no v_reset, no input_shape, no version, no ends: as nir 0.1 and 0.2 wrote them."""
    how = dict.fromkeys(("stride", "padding", "dilation", "groups"), 1)
    nodes = {
        "Input": {"shape": np.array([2, 6])},
        "Conv1d": {"weight": np.ones((2, 2, 3)), "bias": np.zeros(2), **how},
        "LIF": {k: np.full((2, 6), v) for k, v in (("tau", 1e-2), ("r", 1.0), ("v_leak", 0.0), ("v_threshold", 0.5))},
    }  # fmt: skip
    path = tmp_path / "old.nir"
    with h5py.File(path, "w") as f:
        f["node/type"] = "NIRGraph"
        f["node/edges"] = np.array([[0, 1], [1, 2]])
        for i, (kind, fields) in enumerate(nodes.items()):
            f[f"node/nodes/{i}/type"] = kind
            for k, v in fields.items():
                f[f"node/nodes/{i}/{k}"] = v
    g = read(path)
    assert g.order() == ("0", "1", "2", "output")
    assert not g.nodes["2"].neuron.v_reset.any()
    assert "the graph has no Output node; one was added at 2" in warnings(g)
    assert "does not say dt; 0.0001 s is assumed" in warnings(g)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make("in>lif lif>out", lif=lif(tau=2 * ONE)), "tau is 2 s. It looks like milliseconds"),
        (lambda: make("in>lif lif>out", lif=lif(tau=1e-4 * ONE, r=ONE)), "not longer than the step"),
        (lambda: make("in>lif lif>out", lif=lif(v_threshold=0 * ONE)), "v_threshold is 0, not above 0"),
        (lambda: make("in>lif lif>out lif>w"), "node w: does not reach out"),
        (lambda: make("in>lif lif>out", lif=lif(1)), r"one parameter of shape \[1\] is used for all 3 elements"),
        (lambda: make("in>lif lif>output_lif", output_lif=nir.Output(np.array([3]))), "one that nir makes up"),
        (lambda: make("in>d d>lif lif>out", d=nir.Delay(1.5e-4 * ONE)), "a delay of 1.5 steps is rounded"),
        (lambda: make("in>lif lif>out", lif=nir.IF(ONE, ONE)), "r is 1, which is read as 1 per step"),
        (lambda: make("in>lif lif>out", lif=nir.IF(7 * ONE, ONE)), "r dt is 0.0007 to 0.0007 per step"),
    ],
    ids=range(9),
)  # fmt: skip
def test_lint(build: Callable[[], Graph], message: str) -> None:
    assert re.search(rf"warning\[NM151\].*{message}", warnings(build()))


def test_nir_refuses_what_it_infers_wrongly() -> None:
    one = np.ones((2, 6, 4))
    nodes = {
        "in": nir.Input(np.array([1, 8, 8])),
        "c": nir.Conv2d((8, 8), np.ones((2, 1, 3, 5)), 1, 0, 1, 1, np.zeros(2)),
        "lif": nir.LIF(1e-3 * one, one, 0 * one, one),
        "out": nir.Output(np.array([2, 6, 4])),
    }  # fmt: skip
    g = from_nir(nir.NIRGraph(nodes, [("in", "c"), ("c", "lif"), ("lif", "out")], type_check=False), 1e-4)
    assert g.nodes["c"].out_shape == (2, 6, 4)
    assert "note[NM151] graph: the type check of nir" in warnings(g)


def test_a_leaky_integrator_is_read_by_its_membrane() -> None:
    assert make("in>li li>out", li=nir.LI(1e-3 * ONE, ONE, 0 * ONE)).model.readout == "membrane"


def neuron(n: int = 3, **changes: Any) -> NeuronSemantics:
    one = np.ones(n)
    return replace(NeuronSemantics(0.9 * one, one, None, one, 0 * one, one, 0 * one), **changes)


def plain() -> nir.NIRGraph:
    nodes = {
        "in": nir.Input(np.array([3])),
        "fc": nir.Linear(np.eye(3)),
        "lif": lif(),
        "out": nir.Output(np.array([3])),
    }
    return nir.NIRGraph(nodes, [("in", "fc"), ("fc", "lif"), ("lif", "out")], type_check=False)


def test_written_files_are_read_by_nir(tmp_path: Path) -> None:
    path = tmp_path / "m.nir"
    model = ModelSemantics(1e-3, "rate", 12, "spike_count", (0.0, 16.0), ("a", "b", "ü"), "digits")
    assert (
        write(plain(), model, {"lif": neuron(noise_std=0.25)}, path)[0].message
        == "NIR cannot say noise of 0.25; other tools run without"
    )
    theirs = nir.read(path)
    assert theirs.nodes["lif"].tau == pytest.approx(1e-2)
    assert theirs.nodes["lif"].r == pytest.approx(10)
    assert theirs.nodes["lif"].tau.dtype == np.float32
    g = read(path)
    assert g.model == model
    assert not g.warnings
    assert g.nodes["lif"].neuron.noise_std == 0.25
    assert len(g.sha256) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reset": "subtract"}, "reset 'subtract'; other tools reset to 0"),
        ({"reset": "none"}, "reset 'none'; other tools reset to 0"),
        ({"reset": "subtract", "reset_delay": True}, "a reset one step after the spike"),
    ],
)
def test_what_nir_cannot_say_is_a_warning(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    notes = write(plain(), MODEL, {"lif": neuron(**changes)}, tmp_path / "m.nir")
    assert any(d.code == "NM151" and message in d.message for d in notes)
    assert not nir.read(tmp_path / "m.nir").nodes["lif"].v_reset.any()
    back = read(tmp_path / "m.nir").nodes["lif"].neuron
    assert (back.reset, back.reset_delay) == (changes["reset"], changes.get("reset_delay", False))


def test_nothing_is_written_when_the_graph_is_unsound(tmp_path: Path) -> None:
    path = tmp_path / "m.nir"
    path.write_text("precious")
    with pytest.raises(FindingsError, match="NM104"):
        write(plain(), MODEL, {"lif": neuron(4)}, path)
    with pytest.raises(FindingsError, match="NM105.*node no"):
        write(plain(), MODEL, {"lif": neuron(), "no": neuron()}, path)
    slashed = nir.NIRGraph(
        {"a/b": lif(), **plain().nodes}, [*plain().edges, ("in", "a/b"), ("a/b", "fc")], type_check=False
    )
    with pytest.raises(FindingsError, match="NM105.*node a/b"):
        write(slashed, MODEL, {"lif": neuron(), "a/b": neuron()}, path)
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["m.nir"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="NM002"):
        write(plain(), MODEL, {"lif": neuron()}, tmp_path / "file" / "m.nir")
