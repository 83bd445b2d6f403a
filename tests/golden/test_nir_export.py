"""The exporter: arbitrary forwards, folding, names, and modules that NIR has no counterpart for."""

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from snn_modules import on_grid, run_steps
from torch import Tensor, nn

from nmtool.errors import FindingsError, ModelError
from nmtool.frontends.snntorch import export, save
from nmtool.ir.graph import Graph, read
from nmtool.ir.reference import Engine
from nmtool.ir.semantics import ModelSemantics
from nmtool.train.neurons import NoisyLeaky

MODEL = ModelSemantics(dt_s=1e-3, n_steps=20)


def spikes(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def through_file(layers: nn.Module, shape: tuple[int, ...], path: Path) -> Graph:
    save(layers, shape, MODEL, path / "m.nir")
    return read(path / "m.nir")


def engine_spikes(g: Graph, x: Tensor) -> np.ndarray:
    return Engine(g).run(x.numpy().astype(np.uint8), record=("all",)).traces[g.readout_source()].spikes


class Residual(nn.Module):
    """Two branches around a layer, a flatten by method, dropout, identity."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 2, 3, padding=1)
        self.lif1 = snn.Leaky(0.5, threshold=0.5, reset_mechanism="zero", init_hidden=True)
        self.block = nn.Sequential(nn.Conv2d(2, 2, 3, padding="same", bias=False), nn.Dropout2d(0.5))
        self.lif2 = snn.Leaky(0.75, threshold=0.5, init_hidden=True)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(8, 5)
        self.lif3 = snn.Synaptic(0.5, 0.75, threshold=0.5, init_hidden=True)
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.lif1(self.conv1(x))
        h = self.lif2(self.block(a) + a)
        h = self.pool(h)
        return self.lif3(self.same(self.fc(h.view(h.size(0), -1))))


class Unrolled(nn.Module):
    """A loop over the steps, states passed by hand, recurrence by hand."""

    def __init__(self, n_steps: int = 20) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.n_steps = n_steps
        self.fc1 = nn.Linear(6, 8)
        self.back = nn.Linear(8, 8)
        self.lif1 = snn.Leaky(0.75, threshold=0.5, reset_mechanism="zero")
        self.fc2 = nn.Linear(8, 3)
        self.lif2 = snn.Leaky(0.75, threshold=0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk1 = torch.zeros(3, 8)
        out, mems = [], []
        for t in range(self.n_steps):
            spk1, mem1 = self.lif1(self.fc1(x[t]) + self.back(spk1), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
            mems.append(mem2)
        return torch.stack(out), torch.stack(mems)


def test_a_forward_with_a_residual(tmp_path: Path) -> None:
    layers = on_grid(Residual()).eval()
    x = spikes(20, 3, 1, 4, 4)
    with torch.no_grad():
        wanted = torch.stack([layers(step) for step in x]).numpy()
    g = through_file(layers, (1, 4, 4), tmp_path)
    assert wanted.sum() > 20
    np.testing.assert_array_equal(engine_spikes(g, x), wanted)
    assert g.predecessors("lif2") == ("block.0", "lif1")
    assert set(g.nodes) == {
        "input",
        "conv1",
        "lif1",
        "block.0",
        "lif2",
        "pool",
        "06_flatten",
        "fc",
        "lif3",
        "output",
    }


def test_a_loop_over_time_is_one_step(tmp_path: Path) -> None:
    layers = on_grid(Unrolled())
    before = set(vars(layers))
    x = spikes(20, 3, 6)
    with torch.no_grad():
        wanted = layers(x)[0].numpy()
    g = through_file(layers, (6,), tmp_path)
    assert set(vars(layers)) == before, "tracing leaves nothing behind in the user's module"
    assert wanted.sum() > 20
    np.testing.assert_array_equal(engine_spikes(g, x), wanted)
    assert g.feedback_edges == (("lif1", "back"),)


def test_batch_norm_is_folded(tmp_path: Path) -> None:
    torch.manual_seed(2)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), snn.Leaky(0.9, reset_mechanism="zero"), nn.Flatten(),
        nn.Linear(12, 5), nn.BatchNorm1d(5, affine=False), snn.Leaky(0.9, reset_mechanism="zero"),
    )  # fmt: skip
    layers.train()
    with torch.no_grad():
        for _ in range(5):
            layers[1](layers[0](torch.randn(16, 1, 4, 4)))
            layers[5](torch.randn(16, 5) * 0.1)
        layers[1].weight.uniform_(1, 3)
        layers[1].bias.uniform_(0, 1)
    layers.eval()
    x = spikes(30, 4, 1, 4, 4)
    g = through_file(layers, (1, 4, 4), tmp_path)
    assert [type(n.op).__name__ for n in g.nodes.values()] == [
        "Input", "Conv2d", "LIF", "Flatten", "Affine", "LIF", "Output"
    ]  # fmt: skip
    conv = g.nodes["01_conv"].op
    with torch.no_grad():
        wanted = layers[1](layers[0](x[0])).numpy()
        folded = nn.functional.conv2d(x[0], torch.tensor(conv.weight), torch.tensor(conv.bias)).numpy()
    np.testing.assert_allclose(folded, wanted, atol=1e-6)
    modules = run_steps(layers, x)
    assert modules.sum() > 20
    assert (engine_spikes(g, x) != modules).mean() < 1e-3, "folding rounds the weights, so a spike may differ"


def test_names_are_kept_or_numbered() -> None:
    def names(layers: nn.Module) -> list[str]:
        return sorted(export(layers, (4,), MODEL)[0].nodes)

    lif = snn.Leaky(0.9)
    assert names(nn.Sequential(nn.Linear(4, 4), lif)) == ["01_fc", "02_lif", "input", "output"]
    named = nn.Sequential()
    named.add_module("hidden", nn.Linear(4, 4))
    named.add_module("out", snn.RLeaky(0.9, linear_features=4))
    assert names(named) == ["hidden", "input", "out", "out.w_rec", "output"]
    assert names(lif) == ["01_lif", "input", "output"]


def test_noisy_neurons_keep_their_noise(tmp_path: Path) -> None:
    class Noisy(snn.Leaky):
        noise_std = 0.25

        def forward(self, x: Tensor, mem: Tensor | None = None) -> Any:
            return super().forward(x + self.noise_std * torch.randn_like(x), mem)

    g = through_file(nn.Sequential(nn.Linear(4, 3), Noisy(0.9, reset_mechanism="zero")), (4,), tmp_path)
    neuron = g.nodes["02_lif"].neuron
    assert (neuron.noise_std, neuron.reset, neuron.reset_delay) == (0.25, "zero", False)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_projects_own_neurons(reset: Any, tmp_path: Path) -> None:
    """Trained as one scan over all steps; the exported network fires at the same steps."""
    torch.manual_seed(4)
    layers = nn.Sequential(
        nn.Linear(6, 9), NoisyLeaky(0.75, 0.5, reset=reset), nn.Linear(9, 4), NoisyLeaky(0.75, 0.5, 0.3, reset=reset)
    )  # fmt: skip
    on_grid(layers)
    x = spikes(20, 3, 6)
    with torch.no_grad():
        hidden = layers[1].scan(layers[0](x)).spikes
        wanted = layers[3].scan(layers[2](hidden)).spikes.numpy()
    g = through_file(layers, (6,), tmp_path)
    assert wanted.sum() > 10
    run = Engine(g).run(x.numpy().astype(np.uint8), record=("all",), noise=False)
    np.testing.assert_array_equal(run.traces["04_lif"].spikes, wanted)
    assert g.nodes["04_lif"].neuron.noise_std == 0.3


def test_an_infinite_threshold_is_an_integrator(tmp_path: Path) -> None:
    model = ModelSemantics(1e-3, "direct", 5, "membrane")
    layers = nn.Sequential(nn.Linear(4, 3), snn.Leaky(0.5, threshold=float("inf"), reset_mechanism="zero"))
    save(layers, (4,), model, tmp_path / "m.nir")
    g = read(tmp_path / "m.nir")
    assert isinstance(g.nodes["02_lif"].op, nir.LI)
    x = np.ones((2, 4), np.float32)
    current = layers[0](torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(Engine(g).run(x).logits, current * (1 - 0.5**5) / 0.5, rtol=1e-6)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 4), snn.Leaky(0.9, init_hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.fc(self.lif(self.fc(x))))


class Late(Unrolled):
    """The second layer sees what the first gave a step before."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, spk1, out = self.lif1.reset_mem(), self.lif2.reset_mem(), torch.zeros(3, 8), []
        for t in range(4):
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            out.append(spk2)
        return torch.stack(out)


class Forward(nn.Module):
    """One linear layer, one neuron and a forward of one's choice."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.fc, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4)
        self.lif, self.lif2 = snn.Leaky(0.9), snn.Leaky(0.9)
        self.scale = nn.Parameter(torch.ones(4))
        self._forward = forward

    def forward(self, x: Tensor, state: Tensor | None = None) -> Any:
        return self._forward(self, x, state)


class Softer(snn.Leaky):
    def _base_state_function(self, x: Tensor) -> Tensor:
        return super()._base_state_function(x) * 0.5


def flipped() -> snn.Leaky:
    neuron = snn.Leaky(0.9)
    neuron.reset_mechanism = "zero"
    return neuron


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.MaxPool2d(2), r"module 1 \(MaxPool2d\): is not supported. Supported: RLeaky"),
        (snn.Lapicque(beta=0.9), r"module 1 \(Lapicque\): is not supported"),
        (nn.ReLU(), r"module 1 \(ReLU\): is not supported"),
        (Softer(0.9), r"module 1 \(Softer\): changes the equation of snntorch.Leaky"),
        (snn.Leaky(0.9, state_quant=lambda v: v), "quantises its state"),
        (snn.Leaky(0.9, graded_spikes_factor=0.5), "scales its spikes by 0.5"),
        (snn.Leaky(0.9, spike_grad=torch.sigmoid), "fires .* above its threshold, not 0 or 1"),
        (snn.Leaky(0.9, spike_grad=torch.bmm), "has a surrogate that cannot be evaluated"),
        (snn.Leaky(0.9, threshold=-1.0, reset_mechanism="zero", reset_delay=False), r"a negative threshold \(-1\)"),
        (snn.Leaky(0.9, threshold=float("inf")), "subtracts an infinite threshold"),
        (snn.Leaky(torch.full((4,), float("nan"))), "a beta that is not a number"),
        (snn.Leaky(torch.ones(3) * 0.9), r"has beta of shape \[3\] on a layer of shape \[4\]"),
        (flipped(), "was made with reset 'subtract' and changed to 'zero'"),
        (snn.RSynaptic(0.5, 0.9, linear_features=4, reset_delay=False), "which RSynaptic of snnTorch 1.0 does not do"),
        (nn.Flatten(0), r"flattens the batch axis \(start_dim=0\)"),
        (nn.BatchNorm1d(4, track_running_stats=False), "normalises each batch by itself"),
        (nn.BatchNorm1d(3), "normalises 3 features, the layer before gives 4"),
        (nn.Sequential(snn.Leaky(0.9), nn.BatchNorm1d(4)), r"module 1.1 \(BatchNorm1d\): does not stand directly"),
    ],
)  # fmt: skip
def test_modules_without_counterpart(layer: nn.Module, message: str) -> None:
    layers = nn.Sequential(nn.Linear(4, 4), layer, snn.Leaky(0.9))
    with pytest.raises(FindingsError, match=rf"NM107\] .*{message}"):
        export(layers, (4,), MODEL)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "pads with 'reflect'; NIR pads with zeros"),
        (nn.Conv2d(1, 1, 2, padding="same", dilation=3), "an even kernel and dilation 3"),
        (nn.AvgPool2d(2, ceil_mode=True), "uses ceil_mode"),
        (nn.AvgPool2d(2, divisor_override=3), "uses ceil_mode or divisor_override"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "leaves padding out of the mean"),
    ],
)
def test_layers_of_images_without_counterpart(layer: nn.Module, message: str) -> None:
    with pytest.raises(FindingsError, match=rf"NM107\].*{message}"):
        export(nn.Sequential(layer, snn.Leaky(0.9)), (1, 8, 8), MODEL)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x, s: m.lif(m.fc(x) * 2)[0], "operation mul: is an operation without a NIR node"),
        (lambda m, x, s: m.lif(torch.relu(m.fc(x)))[0], "operation relu: is an operation"),
        (lambda m, x, s: m.lif(m.fc(x) + m.scale)[0], "operation scale: is a constant or parameter"),
        (lambda m, x, s: m.fc2(m.lif(m.fc(x))[1]), r"module fc2 \(Linear\): is given a membrane or current"),
        (lambda m, x, s: m.lif(m.fc(x) + m.fc(x))[0], r"module lif \(Leaky\): adds a signal to itself"),
        (
            lambda m, x, s: m.lif2(m.lif(m.fc(x))[0], m.lif(m.fc(x))[1])[0],
            "is given the state of another neuron",
        ),
        (lambda m, x, s: m.lif(m.fc(x)[:, :2])[0], "operation getitem: takes a part of a tensor"),
        (lambda m, x, s: torch.zeros(3), "returns nothing that a layer gives|takes|is given something"),
    ],
    ids=["scaled", "relu", "parameter", "membrane", "doubled", "foreign state", "slice", "constant"],
)
def test_forwards_without_counterpart(forward: Any, message: str) -> None:
    with pytest.raises(FindingsError, match=rf"NM107\] .*({message})"):
        export(Forward(forward), (4,), MODEL)


def test_a_forward_that_depends_on_values() -> None:
    with pytest.raises(
        ModelError, match=r"NM107\] module Forward: its forward cannot be traced \(TraceError"
    ):
        export(Forward(lambda m, x, s: m.fc(x) if x.sum() > 0 else x), (4,), MODEL)


def test_shared_modules_and_late_signals() -> None:
    with pytest.raises(FindingsError, match=r"NM107\] module fc \(Linear\): is used at several places"):
        export(Shared(), (4,), MODEL)
    with pytest.raises(
        FindingsError, match=r"NM107\] module fc2 \(Linear\): takes what lif1 gave at another step"
    ):
        export(Late(), (6,), MODEL)


def test_every_module_without_counterpart_is_named() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), snn.Lapicque(beta=0.9), nn.Softmax(dim=1))
    with pytest.raises(FindingsError) as e:
        export(layers, (4,), MODEL)
    assert [d.where for d in e.value.findings] == [
        "module 1 (ReLU)",
        "module 2 (Lapicque)",
        "module 3 (Softmax)",
    ]


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(FindingsError, match=r"NM104\] node 01_fc \(Affine\): weight \[4, 3\].*gets \[4\]"):
        export(nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9)), (4,), MODEL)
