"""lava-dl's own recordings, reproduced by the simulator entry by entry.

They come with lava-dl 0.6.0's wheel. Those of ``pilotnet_lif`` hold 128 in v wherever a neuron spiked and were so
read from a chip; elsewhere they hold what lava-dl's authors compared Lava with. Arrays there are ``[W, H, C, T]``.
"""

from pathlib import Path

import numpy as np
import pytest
from net_writer import cuba, dense, write_net
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions, Trace
from nmtool.backends.sim import SimBackend
from nmtool.compiler.program import Program
from nmtool.errors import FindingsError
from nmtool.frontends.netx import read_net

PILOTNET_LAYERS = {
    **{f"conv-{i}": f"conv{i + 1}" for i in range(5)},
    **{f"fc-{i}": f"dense{i + 7}" for i in range(3)},
}
"""Name of a recording -> population; each layer runs one step behind the one before it."""


def recorded(folder: Path, name: str) -> NDArray[np.generic]:
    """A recording ``[W, H, C, T]`` or ``[N, T]`` as ``[T, 1, C, H, W]`` or ``[T, 1, N]``."""
    return np.load(folder / f"{name}.npy", allow_pickle=False).T[:, None]


def traces(program: Program, x: NDArray[np.generic], n_steps: int) -> dict[str, Trace]:
    """Every population of a run."""
    return dict(SimBackend(program).run(x, RunOptions(n_steps=n_steps, record=("all",))).traces)


def image_of(bias: NDArray[np.generic], program: Program) -> NDArray[np.float32]:
    """The image in [0, 1] whose bias mantissas (the recording, ``[W, H, C]``) are given."""
    host = program.host
    assert host is not None
    x = (bias.T[None] - host.man_min) / (host.man_max - host.man_min)
    return x.astype(np.float32)


def assert_equal(found: NDArray[np.generic] | None, expected: NDArray[np.generic]) -> None:
    assert found is not None
    assert found.shape == expected.shape
    assert np.count_nonzero(found != expected) == 0


def test_dense(lava_dl_recordings: Path, tmp_path: Path) -> None:
    """256 neurons, 2000 steps: spikes and u."""
    folder = lava_dl_recordings / "dense"
    w = np.load(folder / "weight.npy", allow_pickle=False)
    program = read_net(write_net(tmp_path / "dense.net", [dense(w.astype(np.float32), cuba(4096, 415, 6))]))
    out = traces(program, recorded(folder, "in").astype(np.uint8), 2000)["dense0"]
    # The recording begins with the step that Lava's synapses wait.
    assert_equal(out.spikes[:-1], recorded(folder, "out")[1:])
    assert_equal(out.u[:-1], recorded(folder, "current")[1:] * 64)


def test_tinynet(lava_dl_recordings: Path) -> None:
    """Input neurons driven by an image, two convs: spikes of all, u of the first conv. Recorded in [1, C, H, W, T]."""
    folder = lava_dl_recordings / "tinynet"
    program = read_net(lava_dl_recordings.parent / "tiny.net")
    bias = np.load(folder / "input_bias.npy", allow_pickle=False)
    got = traces(program, image_of(bias, program), 15)

    def of(name: str) -> NDArray[np.generic]:
        return np.moveaxis(np.load(folder / f"{name}.npy", allow_pickle=False), -1, 0)[1:]

    assert_equal(got["input0"].spikes, of("input"))
    assert_equal(got["conv1"].spikes, of("layer1"))
    assert_equal(got["conv1"].u, of("current") * 64)
    assert_equal(got["conv2"].spikes, of("output"))


def test_tinynet_kernel_is_the_files(lava_dl_recordings: Path) -> None:
    """Lava's layout (C_out, kW, kH, C_in), flipped, against torch's."""
    (first, _) = read_net(lava_dl_recordings.parent / "tiny.net").connections
    lava = np.load(lava_dl_recordings / "tinynet" / "layer1_kernel.npy", allow_pickle=False)
    assert_equal(first.weights, lava.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1])


def test_ntidigits(lava_dl_recordings: Path) -> None:
    """Two layers with delays of up to 62 steps, 3000 steps.

    The recording is SLAYER's: beside the three steps of the layers it has one of SLAYER's input block.
    """
    folder = lava_dl_recordings / "ntidigits"
    program = read_net(folder / "ntidigits.net", num_layers=5)
    assert (program.input.n_steps, program.max_latency) == (3000, 3)
    out = traces(program, recorded(folder, "input").astype(np.uint8), 3000)["dense4"]
    expected = recorded(folder, "output")
    assert_equal(out.spikes[:-4], expected[4:])
    assert not expected[:4].any()
    assert expected.sum() > 10_000


@pytest.fixture(scope="module")
def pilotnet(lava_dl_recordings: Path) -> tuple[Program, dict[str, Trace]]:
    folder = lava_dl_recordings / "pilotnet_lif"
    program = read_net(folder / "network.net")
    image = np.load(folder / "image.npy", allow_pickle=False)
    return program, traces(program, image_of(image, program), 16)


def test_pilotnet_reads_the_membrane_of_its_last_layer(pilotnet: tuple[Program, dict[str, Trace]]) -> None:
    program, got = pilotnet
    assert (program.output, program.readout, program.input.n_steps) == ("dense10", "membrane", 16)
    assert (program.host.man_min, program.host.man_max) == (-4, 76)
    assert not got["dense10"].spikes.any()


def test_pilotnet_input(pilotnet: tuple[Program, dict[str, Trace]], lava_dl_recordings: Path) -> None:
    assert_equal(pilotnet[1]["input0"].spikes, recorded(lava_dl_recordings / "pilotnet_lif", "input-s")[:16])


@pytest.mark.parametrize("name", PILOTNET_LAYERS)
def test_pilotnet(name: str, pilotnet: tuple[Program, dict[str, Trace]], lava_dl_recordings: Path) -> None:
    """Spikes, u, and v where no spike was, of the 16 steps that belong to the image."""
    program, got = pilotnet
    folder, population = lava_dl_recordings / "pilotnet_lif", program.population(PILOTNET_LAYERS[name])
    own = slice(population.latency, population.latency + 16)
    spikes, u, v = (recorded(folder, name + suffix)[own] for suffix in ("", "-u", "-v"))
    trace = got[population.name]
    assert_equal(trace.spikes, spikes)
    assert_equal(trace.u, u)
    assert_equal(trace.v[~spikes], v[~spikes])
    assert set(np.unique(v[spikes])) == {128}
    assert not trace.v[spikes].any()


def test_mnist(lava_dl_recordings: Path) -> None:
    """No recording belongs to it; its layers and its readout without neurons do."""
    program = read_net(lava_dl_recordings.parent / "mnist.net")
    assert (program.input.shape, program.input.n_steps) == ((784,), 16)
    assert [p.n_neurons for p in program.populations] == [784, 512, 512, 10]
    assert (program.host.man_min, program.host.man_max) == (-12, 140)
    assert (program.readout, int(program.populations[-1].v_th_man)) == ("membrane", 1 << 17)
    assert {c.sign_mode for c in program.connections} == {"mixed"}
    assert program.info["notes"] == ["input: 0 .. 1 taken as -1 .. 1 in training; the file does not say"]


def test_sigma_delta_networks_are_refused_layer_by_layer(lava_dl_recordings: Path) -> None:
    with pytest.raises(FindingsError, match="layer/0/neuron/type: 'input' has 'SDNN' neurons") as e:
        read_net(lava_dl_recordings / "pilotnet_sdnn" / "network.net")
    assert [d.where.split("layer/")[1].split("/")[0] for d in e.value.findings] == list("012346789")


def test_what_follows_the_readable_layers_is_named(lava_dl_recordings: Path) -> None:
    with pytest.raises(FindingsError, match="NM102.*layer/5: type 'average' cannot be run.*--read layers=5"):
        read_net(lava_dl_recordings / "ntidigits" / "ntidigits.net")
