"""The frozen program: what a backend executes. Integers only, no graph, no torch, no target rules.

Time. Every population lives in its *own* time, in which a feed-forward connection has no delay. A synapse stage on
the chip and in Lava costs one step, so a population runs ``latency`` steps behind the input there. A connection's
``delay_steps`` is counted in own time; :meth:`Program.chip_delay` gives what has to be programmed.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import ModelError
from nmtool.fixedpoint.neuron import NeuronParams
from nmtool.fixedpoint.noise import NoiseSpec
from nmtool.provenance import writing

SCHEMA = "nmtool.program/1"

ConnectionKind = Literal["dense", "sparse", "conv"]
SignMode = Literal["mixed", "excitatory", "inhibitory"]
Encoder = Literal["spikes", "direct", "rate"]
Readout = Literal["spike_count", "membrane"]


@dataclass(frozen=True)
class InputSpec:
    """How data enter the program.

    Attributes:
        name: the graph's input node.
        shape: without batch and time.
        encoder: ``spikes``: uint8 ``[T, B, *shape]`` as given; ``direct``: the analog value is a constant current,
            realised by :class:`HostLayer`; ``rate``: Bernoulli spikes with probability x / (x_max x_scale).
        n_steps: default T.
        x_scale: real value of one input unit; a value x enters as ``clip(round(x / x_scale), 0, x_max)``.
        x_max: largest input unit.
    """

    name: str
    shape: tuple[int, ...]
    encoder: Encoder
    n_steps: int
    x_scale: float = 1.0 / 255.0
    x_max: int = 255


@dataclass(frozen=True)
class Population:
    """Neurons that share a layer of the graph. Arrays are int32, scalar ``()`` or ``[*shape]`` (C order).

    Attributes:
        name: the graph's neuron node.
        shape: without batch and time, ``(N,)`` or ``(C, H, W)``.
        decay_syn_q12, decay_mem_q12, v_th_man, bias_man, bias_exp, refractory_steps: see
            :class:`nmtool.fixedpoint.neuron.NeuronParams`.
        scale: real value of one membrane unit (real = int * scale).
        latency: steps behind the input on chip and in Lava.
        noise: registers, or None.
    """

    name: str
    shape: tuple[int, ...]
    decay_syn_q12: NDArray[np.int32]
    decay_mem_q12: NDArray[np.int32]
    v_th_man: NDArray[np.int32]
    bias_man: NDArray[np.int32]
    bias_exp: NDArray[np.int32]
    scale: float
    latency: int
    refractory_steps: int = 1
    noise: NoiseSpec | None = None

    @property
    def n_neurons(self) -> int:
        """How many neurons."""
        return int(np.prod(self.shape))

    @property
    def params(self) -> NeuronParams:
        """Registers flattened to ``[N]`` or scalar, int64, as the integer step wants them."""

        def flat(a: NDArray[np.int32]) -> NDArray[np.int64]:
            return np.asarray(a, np.int64).reshape(-1) if np.ndim(a) else np.asarray(a, np.int64)

        return NeuronParams(
            flat(self.decay_syn_q12),
            flat(self.decay_mem_q12),
            flat(self.v_th_man),
            flat(self.bias_man),
            flat(self.bias_exp),
            self.refractory_steps,
        )


@dataclass(frozen=True)
class Connection:
    """Synapses from one population (or the input) to another. Several into one target add up.

    Attributes:
        weights: int32 already on the grid that the chip truncates to, so that programming them changes nothing.
            ``dense`` ``[n_out, n_in]``; ``conv`` ``[C_out, C_in / groups, kH, kW]`` in torch orientation
            (cross-correlation); ``sparse`` ``[nnz]``, with ``indices`` ``[2, nnz]`` (target, source), sorted by
            target, then source.
        weight_exp: the sum is shifted by this: left if positive, floor if negative. 0 for ``conv``.
        weight_bits, sign_mode: the grid; ``sign_mode`` decides the synapse's range.
        message_bits: 0 = binary spikes, else graded with this payload.
        delay_steps: int32, own time; scalar, or ``dense`` ``[n_out, n_in]``, or ``sparse`` ``[nnz]``.
        in_shape, out_shape: ``conv`` only, ``(C, H, W)``.
        stride, padding, dilation: ``conv`` only, (H, W).
    """

    name: str
    source: str
    target: str
    kind: ConnectionKind
    weights: NDArray[np.int32]
    weight_exp: int = 0
    weight_bits: int = 8
    sign_mode: SignMode = "mixed"
    message_bits: int = 0
    delay_steps: NDArray[np.int32] = field(default_factory=lambda: np.zeros((), np.int32))
    indices: NDArray[np.int32] | None = None
    in_shape: tuple[int, int, int] | None = None
    out_shape: tuple[int, int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def max_delay(self) -> int:
        """Largest delay in own time."""
        return int(self.delay_steps.max()) if self.delay_steps.size else 0


@dataclass(frozen=True)
class HostLayer:
    """First synaptic layer of a ``direct`` network, run on the host because the target takes no analog input.

    Integer arithmetic throughout: ``acc = W x + bias`` (int64), then ``bias_man = clip(round(acc / 2**shift))``
    with ties toward +inf, i.e. ``(acc + 2**(shift - 1)) >> shift``; it replaces the target population's ``bias_man``
    for the sample, whose ``bias_exp`` stays.

    Attributes:
        connection: the synapses; ``source`` is the input, ``weight_exp`` and ``delay_steps`` are 0.
        bias: int64 ``[N]`` on the accumulator's grid.
        shift: see above, >= 0.
        man_min, man_max: range of the bias mantissa on the target.
    """

    connection: Connection
    bias: NDArray[np.int64]
    shift: int
    man_min: int
    man_max: int


@dataclass(frozen=True)
class Program:
    """A network compiled for a target.

    Attributes:
        target: name of the target description that it was compiled for.
        input: how data enter.
        populations: in an order in which every zero-delay connection goes forward.
        connections: all chip connections.
        host: the host's part, or None.
        output: name of the population that is read.
        readout: ``spike_count`` of the output population, or ``membrane`` = v after the last step.
        dt_s: duration of one step in seconds.
        class_labels: names of the output classes, may be empty.
        graph_sha256: of the file that was compiled.
        info: what the compiler reports (JSON types only): quantisation, notes, named lossy steps.
    """

    target: str
    input: InputSpec
    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    host: HostLayer | None
    output: str
    readout: Readout
    dt_s: float
    class_labels: tuple[str, ...] = ()
    graph_sha256: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def population(self, name: str) -> Population:
        """The population of that name."""
        return self.populations[self.index(name)]

    def index(self, name: str) -> int:
        """Position of a population; it is also the ``block`` of the noise stream."""
        return next(i for i, p in enumerate(self.populations) if p.name == name)

    def incoming(self, name: str) -> tuple[Connection, ...]:
        """Chip connections into a population."""
        return tuple(c for c in self.connections if c.target == name)

    def latency(self, name: str) -> int:
        """Steps behind the input on chip; 0 for the input itself."""
        return 0 if name == self.input.name else self.population(name).latency

    def size(self, name: str) -> int:
        """Number of neurons of a population, or of input lines."""
        return int(np.prod(self.input.shape)) if name == self.input.name else self.population(name).n_neurons

    def chip_delay(self, connection: Connection) -> NDArray[np.int32]:
        """Delay to program beside the one step that a synapse stage costs anyway (0..62 on Loihi)."""
        lag = self.latency(connection.target) - self.latency(connection.source) - 1
        return (connection.delay_steps + lag).astype(np.int32)

    @property
    def max_latency(self) -> int:
        """Steps that the slowest population runs behind the input."""
        return max(p.latency for p in self.populations)

    @property
    def sha256(self) -> str:
        """Digest of everything that changes a result; names count, ``info`` does not."""
        header, arrays = _flatten(replace(self, info={}))
        named = {f"{k} {a.shape}": a.tobytes() for k, a in arrays.items()}
        return _digest(named | {"header": json.dumps(header, sort_keys=True).encode()})


def save(program: Program, path: Path) -> None:
    """Write ``program.npz`` (no pickle): arrays, the rest as ``header.json``, and the digest of them all."""
    header, arrays = _flatten(program)
    entries = {"header.json": json.dumps(header).encode()} | {f"{k}.npy": _npy(a) for k, a in arrays.items()}
    entries["sha256"] = _digest(entries).encode()
    with writing(path) as part, ZipFile(part, "w", ZIP_DEFLATED) as z:
        for name, content in entries.items():
            z.writestr(name, content)


def load(path: Path) -> Program:
    """Read what :func:`save` wrote; nothing is looked at before the digest says that it is what was written.

    Raises:
        ModelError: NM110 if the file is not a program, is damaged, or is of another version.
    """
    try:
        with ZipFile(path) as z:
            if any(i.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for i in z.infolist()):
                raise ValueError("it is compressed in another way than nmtool's")
            entries = {name: z.read(name) for name in z.namelist()}
        if entries.pop("sha256", b"") != _digest(entries).encode():
            raise ValueError("its digest is not that of its content")
        header = json.loads(entries.pop("header.json"))
        if header["schema"] != SCHEMA:
            raise ValueError(f"schema is {header['schema']!r}, this version reads {SCHEMA!r}")
        arrays = {k[:-4]: np.load(io.BytesIO(content), allow_pickle=False) for k, content in entries.items()}
        return _unflatten(header, arrays)
    except _UNREADABLE as e:
        found = f"not a readable program ({type(e).__name__}: {e})"
        raise ModelError("NM110", str(path), found, "Export the model again") from e


_UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, BadZipFile, zlib.error)


def _npy(a: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, a, allow_pickle=False)
    return out.getvalue()


def _digest(entries: Mapping[str, bytes]) -> str:
    """SHA-256 of names, sizes and contents."""
    digest = hashlib.sha256()
    for name in sorted(entries):
        digest.update(f"{name} {len(entries[name])} ".encode())
        digest.update(entries[name])
    return digest.hexdigest()


_ARRAY_FIELDS = {
    Population: ("decay_syn_q12", "decay_mem_q12", "v_th_man", "bias_man", "bias_exp"),
    Connection: ("weights", "delay_steps", "indices"),
}


def _part(obj: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Header of one Population or Connection; its arrays go to ``arrays``."""
    names = _ARRAY_FIELDS[type(obj)]
    for n in names:
        if getattr(obj, n) is not None:
            arrays[f"{prefix}/{n}"] = getattr(obj, n)
    head = {f.name: getattr(obj, f.name) for f in fields(obj) if f.name not in names}
    if head.get("noise") is not None:
        head["noise"] = asdict(head["noise"])
    return head


def _flatten(p: Program) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "input": asdict(p.input),
        "populations": [_part(q, f"population/{i}", arrays) for i, q in enumerate(p.populations)],
        "connections": [_part(c, f"connection/{i}", arrays) for i, c in enumerate(p.connections)],
        "host": None,
    }
    for key in ("target", "output", "readout", "dt_s", "class_labels", "graph_sha256", "info"):
        header[key] = getattr(p, key)
    if p.host is not None:
        arrays["host/bias"] = p.host.bias
        header["host"] = {
            "connection": _part(p.host.connection, "host/connection", arrays),
            **{k: getattr(p.host, k) for k in ("shift", "man_min", "man_max")},
        }
    return header, arrays


def _build(cls: Any, head: dict[str, Any], prefix: str, arrays: dict[str, NDArray[Any]]) -> Any:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in head.items()}
    for n in _ARRAY_FIELDS[cls]:
        if n != "indices" or f"{prefix}/{n}" in arrays:
            a = arrays[f"{prefix}/{n}"]
            if a.dtype != np.int32:
                raise ValueError(f"{prefix}/{n} is {a.dtype}, not int32")
            values[n] = a
    if values.get("noise") is not None:
        values["noise"] = NoiseSpec(**values["noise"])
    return cls(**values)


def _unflatten(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Program:
    spec = dict(header["input"])
    spec["shape"] = tuple(spec["shape"])
    host = header["host"]
    if host is not None:
        host = HostLayer(
            _build(Connection, host["connection"], "host/connection", arrays),
            arrays["host/bias"].astype(np.int64, casting="safe"),
            *(int(host[k]) for k in ("shift", "man_min", "man_max")),
        )
    lists: dict[str, Any] = {
        f"{kind}s": tuple(_build(cls, h, f"{kind}/{i}", arrays) for i, h in enumerate(header[f"{kind}s"]))
        for kind, cls in (("population", Population), ("connection", Connection))
    }
    program = Program(
        input=InputSpec(**spec),
        **lists,
        host=host,
        class_labels=tuple(header["class_labels"]),
        **{k: header[k] for k in ("target", "output", "readout", "dt_s", "graph_sha256", "info")},
    )
    check_consistent(program)
    return program


def check_consistent(program: Program) -> None:
    """Refuse a program whose parts do not fit together.

    Raises:
        ValueError: names the part. (:func:`load` turns it into NM110.)
    """
    names = [p.name for p in program.populations]
    if len(set(names)) != len(names) or program.output not in names or program.input.name in names:
        raise ValueError("population names are not unique, or the output is not one of them")
    for p in program.populations:
        for n in _ARRAY_FIELDS[Population]:
            if getattr(p, n).shape not in ((), p.shape):
                raise ValueError(f"{p.name}.{n} has shape {getattr(p, n).shape}, population {p.shape}")
    for c in (*program.connections, *((program.host.connection,) if program.host else ())):
        if c.target not in names or c.source not in (*names, program.input.name):
            raise ValueError(f"{c.name}: goes from {c.source!r} to {c.target!r}, which are not both there")
        if c.delay_steps.shape not in ((), c.weights.shape):
            raise ValueError(f"{c.name}: delays {c.delay_steps.shape}, weights {c.weights.shape}")
        n_out, n_in = program.size(c.target), program.size(c.source)
        if c.kind == "dense" and c.weights.shape != (n_out, n_in):
            raise ValueError(f"{c.name}: weights {c.weights.shape}, expected {(n_out, n_in)}")
        if c.kind == "sparse" and (
            c.indices is None
            or c.indices.shape != (2, *c.weights.shape)
            or (c.indices.size and (c.indices.min() < 0 or (c.indices.max(axis=1) >= (n_out, n_in)).any()))
        ):
            raise ValueError(f"{c.name}: sparse indices do not fit {(n_out, n_in)}")
        if c.kind == "conv" and (
            c.in_shape is None
            or c.out_shape is None
            or int(np.prod(c.in_shape)) != n_in
            or int(np.prod(c.out_shape)) != n_out
            or c.weights.ndim != 4
        ):
            raise ValueError(f"{c.name}: conv {c.in_shape} -> {c.out_shape} does not fit {n_in} -> {n_out}")
        if c.kind not in ("dense", "sparse", "conv"):
            raise ValueError(f"{c.name}: kind {c.kind!r}")
