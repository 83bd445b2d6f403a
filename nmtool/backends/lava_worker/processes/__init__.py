"""Our own Lava Processes: what observes a network from outside, and the neuron with noise and refractory period.

Lava looks for a Process's model by importing every module in the folder that holds the Process. This package is one
module on its own, so that it finds nothing else. It is imported by the Lava worker alone (Python 3.10).

Lava runs every ProcessModel in a forked OS process. Arrays made by :func:`shared` are the same memory on both sides,
so nothing has to be read back element by element.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset
from numpy.typing import NDArray

from nmtool.fixedpoint.noise import NoiseSpec, noise


def shared(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros in anonymous memory that forked processes share."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, int(np.prod(shape))).reshape(shape)


@dataclass(frozen=True)
class Clock:
    """From Lava's time to a population's own time. Samples follow each other every ``interval`` steps.

    Attributes:
        n_samples: how many samples.
        n_steps: T, steps of a sample that count.
        interval: T and the silent steps after it, in which synapses drain.
        latency: steps that the population runs behind the input.
    """

    n_samples: int
    n_steps: int
    interval: int
    latency: int

    def own(self, time_step: int) -> tuple[int, int] | None:
        """(sample, step), both from 0, at Lava's step (from 1); None between samples."""
        sample, step = divmod(time_step - 1 - self.latency, self.interval)
        return (sample, step) if 0 <= sample < self.n_samples and step < self.n_steps else None

    @property
    def reset_offset(self) -> int:
        """``LIFReset``'s offset: the first own step of every sample."""
        return self.latency + 1


@dataclass(frozen=True)
class SpikeRecord:
    """Shared arrays that a :class:`Tap` fills; ``B`` samples, ``T`` steps, ``N`` neurons.

    Attributes:
        counts: int64 ``[B, N]``.
        last: uint8 ``[B, N]``, spikes of the last step.
        density: int64 ``[T]``, spikes per step summed over samples and neurons.
        spikes: uint8 ``[T, B, N]``, or ``T`` = 0 where no trace is wanted.
        reached: int64 ``[1]``, the last Lava step that arrived here.
    """

    counts: NDArray[np.int64]
    last: NDArray[np.uint8]
    density: NDArray[np.int64]
    spikes: NDArray[np.uint8]
    reached: NDArray[np.int64]

    @staticmethod
    def zeros(clock: Clock, n: int, traced: bool) -> SpikeRecord:
        """An empty record."""
        b, t = clock.n_samples, clock.n_steps
        return SpikeRecord(
            shared((b, n), np.int64),
            shared((b, n), np.uint8),
            shared((t,), np.int64),
            shared((t if traced else 0, b, n), np.uint8),
            shared((1,), np.int64),
        )


class Tap(AbstractProcess):
    """Counts and records spikes, and passes on those that belong to a sample.

    A network with memory in its synapses (delays, recurrence) runs through taps: what a population fires before its
    first own step or after its last one goes nowhere, so that nothing is in flight when the next sample begins.
    """

    def __init__(self, *, n: int, clock: Clock, record: SpikeRecord, name: str) -> None:
        super().__init__(clock=clock, record=record, name=name)
        self.s_in = InPort(shape=(n,))
        self.s_out = OutPort(shape=(n,))


@implements(proc=Tap, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyTapModel(PyLoihiProcessModel):
    """Receives and sends in the same step, so that a tap costs no latency."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """One step."""
        spikes = self.s_in.recv()
        at = self.proc_params["clock"].own(self.time_step)
        record: SpikeRecord = self.proc_params["record"]
        if at is None:
            spikes = np.zeros_like(spikes)
        else:
            sample, step = at
            record.counts[sample] += spikes
            record.last[sample] = spikes
            record.density[step] += spikes.sum()
            if record.spikes.size:
                record.spikes[step, sample] = spikes
        self.s_out.send(spikes)
        record.reached[0] = self.time_step


class Probe(AbstractProcess):
    """Copies u and v of a population after its steps; with ``last_only`` only after a sample's last one."""

    def __init__(
        self, *, u: Var, v: Var, clock: Clock, into: NDArray[np.int32], last_only: bool, name: str
    ) -> None:
        super().__init__(clock=clock, into=into, last_only=last_only, name=name)
        self.u = RefPort(u.shape)
        self.v = RefPort(v.shape)
        self.u.connect_var(u)
        self.v.connect_var(v)


@implements(proc=Probe, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyProbeModel(PyLoihiProcessModel):
    """Reads after the spiking phase, so v is the potential after the reset."""

    u: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)
    v: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def post_guard(self) -> bool:
        """Whether this step is wanted."""
        clock: Clock = self.proc_params["clock"]
        at = clock.own(self.time_step)
        return at is not None and (not self.proc_params["last_only"] or at[1] == clock.n_steps - 1)

    def run_post_mgmt(self) -> None:
        """Copy into the shared ``[2, T, B, N]`` (``T`` = 1 with ``last_only``)."""
        sample, step = self.proc_params["clock"].own(self.time_step)
        into = self.proc_params["into"]
        row = 0 if self.proc_params["last_only"] else step
        into[0, row, sample] = self.u.read()
        into[1, row, sample] = self.v.read()


class BiasWriter(AbstractProcess):
    """Sets a population's bias mantissa for the next sample, just before the sample's first own step."""

    def __init__(self, *, bias_mant: Var, clock: Clock, values: NDArray[np.int32], name: str) -> None:
        super().__init__(clock=clock, values=values, name=name)
        self.bias_mant = RefPort(bias_mant.shape)
        self.bias_mant.connect_var(bias_mant)


@implements(proc=BiasWriter, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBiasWriterModel(PyLoihiProcessModel):
    """Writes after the step before; the value of the first sample is the register's initial one."""

    bias_mant: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def _next(self) -> int | None:
        at = self.proc_params["clock"].own(self.time_step + 1)
        return at[0] if at is not None and at[1] == 0 else None

    def post_guard(self) -> bool:
        """Whether a sample begins with the next step."""
        return self._next() is not None

    def run_post_mgmt(self) -> None:
        """Write the sample's values and wait until they have arrived."""
        self.bias_mant.write(self.proc_params["values"][self._next()])
        self.bias_mant.wait()


@dataclass(frozen=True)
class Extras:
    """What a :class:`NoisyLIF` adds to Lava's ``LIFReset``.

    Attributes:
        clock: for the noise stream, which counts samples and own steps.
        refractory_steps: 1 means no dead step; r holds v at zero for r - 1 steps after a spike (nengo-loihi).
        noise: registers, or None.
        seed, sample_offset, block: of the noise stream.
    """

    clock: Clock
    refractory_steps: int
    noise: NoiseSpec | None
    seed: int
    sample_offset: int
    block: int


class NoisyLIF(LIFReset):
    """Lava's ``LIFReset`` with the noise of Loihi 1 and a refractory period, which Lava lacks."""

    def __init__(self, *, extras: Extras, **lif: Any) -> None:
        super().__init__(**lif)
        self.proc_params["extras"] = extras


@implements(proc=NoisyLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyNoisyLIFModel(PyLifResetModelBitAcc):
    """All arithmetic stays Lava's: noise enters beside the activation or the bias; v is held while refractory."""

    implements_process = None  # inherited from the model of LIFReset, which Lava would not let us replace
    act_shift: int
    effective_bias: NDArray[np.int32]
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    vth: int = LavaPyType(int, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.extras: Extras = proc_params["extras"]
        self.countdown: NDArray[np.int64] | int = 0
        # The activation is shifted here, so that noise on the current can be finer than one unit of it.
        self.input_shift, self.act_shift = self.act_shift, 0

    def subthr_dynamics(self, activation_in: NDArray[np.int32]) -> None:
        """Noise, Lava's u and v, then the hold. (Reset of u and v at a sample's begin comes before, in ``run_spk``.)"""
        at = self.extras.clock.own(self.time_step)
        if at is None or at[1] == 0:
            self.countdown = np.zeros(self.v.shape, np.int64)
        u_in = np.left_shift(activation_in.astype(np.int32), self.input_shift)
        spec = self.extras.noise
        if spec is not None and at is not None:
            drawn = self._draw(spec, *at)
            if spec.at == "current":
                u_in = u_in + drawn
            else:
                self.effective_bias = self.effective_bias + drawn
        super().subthr_dynamics(u_in)
        self.v[self.countdown > 0] = 0

    def _draw(self, spec: NoiseSpec, sample: int, step: int) -> NDArray[np.int32]:
        e = self.extras
        neuron = np.arange(self.v.size).reshape(self.v.shape)
        return noise(spec, e.seed, e.sample_offset + sample, e.block, neuron, step).astype(np.int32)

    def reset_voltage(self, spike_vector: NDArray[np.bool_]) -> None:
        """v to zero where it spiked; the refractory counter is set there and counts down everywhere."""
        super().reset_voltage(spike_vector)
        counter = np.where(spike_vector, self.extras.refractory_steps, self.countdown)
        self.countdown = np.maximum(counter - 1, 0)
