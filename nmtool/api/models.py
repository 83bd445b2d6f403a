"""A model on disk in one of its four forms: which one it is, its graph, its program, what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nmtool.errors import ConfigError, ModelError, did_you_mean

if TYPE_CHECKING:
    from nmtool.compiler.compile import Compiled
    from nmtool.compiler.options import CompileOptions
    from nmtool.compiler.program import Program
    from nmtool.ir.graph import Graph
    from nmtool.target import TargetSpec

Form = Literal["nir", "net", "run", "export"]

DEFAULT_TARGET = "loihi"
MODEL_FILE = "model.nir"
PROGRAM_FILE = "program.npz"


@dataclass(frozen=True)
class Source:
    """A model on disk.

    Attributes:
        path: what the user named.
        form: a NIR file, a lava-dl ``.net`` file, a run directory, or an exported target directory.
    """

    path: Path
    form: Form

    @property
    def has_graph(self) -> bool:
        """Whether there is a NIR file; not for a ``.net`` file and what was exported from one."""
        return self.form in ("nir", "run") or (self.path / MODEL_FILE).is_file()

    @property
    def nir(self) -> Path:
        """The NIR file.

        Raises:
            ModelError: NM107 where there is none.
        """
        if not self.has_graph:
            message = (
                "comes from lava-dl: integers for the chip, without the float network that they came from"
            )
            raise ModelError("NM107", str(self.path), message, "Use the backends sim and lava")
        return self.path if self.form == "nir" else self.path / MODEL_FILE

    @property
    def folder(self) -> Path:
        """Where results about this model belong."""
        return self.path if self.path.is_dir() else self.path.parent


def locate(model: Path | str) -> Source:
    """Which form of a model ``model`` is.

    Raises:
        ConfigError: NM001 if nothing is there, NM008 if a folder holds no model.
    """
    path = Path(model)
    if path.is_dir():
        if (path / PROGRAM_FILE).is_file():
            return Source(path, "export")
        if (path / MODEL_FILE).is_file():
            return Source(path, "run")
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        resume = (path / "checkpoint.pt").is_file() and (path / "recipe.toml").is_file()
        hint = (
            f"Its training did not finish; go on with 'nmtool train {path / 'recipe.toml'} --out {path} --resume'"
            if resume
            else "Name a .nir or .net file, a run directory or an exported target directory"
        )
        raise ConfigError(
            "NM008", str(path), f"has neither {MODEL_FILE} nor {PROGRAM_FILE} (it holds {inside})", hint
        )
    if not path.exists():
        raise ConfigError("NM001", str(path), "no such file or directory", _neighbour(path))
    return Source(path, "net" if path.suffix == ".net" else "nir")


def _neighbour(path: Path) -> str:
    """Models that are there, for the message that one is not."""
    found = sorted(p.name for p in path.parent.glob("*.nir"))[:8] if path.parent.is_dir() else []
    return (
        did_you_mean(path.name, found) if found else "Make one with nmtool train, or start with nmtool demo"
    )


@dataclass(frozen=True)
class Interface:
    """What a model says about its input.

    Attributes:
        name, shape: of the input node.
        encoder: ``spikes``, ``direct`` or ``rate``.
        bounds: range of an analog input.
        data: data set that it was trained on, may be empty.
        dt_s: seconds per step.
    """

    name: str
    shape: tuple[int, ...]
    encoder: str
    bounds: tuple[float, float]
    data: str
    dt_s: float


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read.

    Attributes:
        dt_s: seconds per step of a NIR file; None takes the recorded or inferred one.
        scheme: how a NIR file's differential equations become steps, ``euler`` or ``exponential``.
        layers: how many layers of a ``.net`` file; None takes all.

    Raises:
        ConfigError: NM004 or NM005 for a value that is not allowed.
    """

    dt_s: float | None = None
    scheme: str = "euler"
    layers: int | None = None

    def __post_init__(self) -> None:
        if self.scheme not in ("euler", "exponential"):
            hint = did_you_mean(self.scheme, ("euler", "exponential"))
            raise ConfigError("NM005", "scheme", f"there is no discretisation '{self.scheme}'", hint)
        if self.layers is not None and self.layers < 1:
            raise ConfigError("NM004", "layers", f"is {self.layers}, allowed are 1 and more")


@dataclass(frozen=True)
class Model:
    """An opened model; its parts are read or compiled when first asked for, and then kept.

    Attributes:
        source: where it is.
        target: name or file; None takes that of an exported directory, else :data:`DEFAULT_TARGET`.
        options: the user's choices when compiling; None takes the defaults.
        reading: the user's choices when reading.
    """

    source: Source
    target: str | None = None
    options: CompileOptions | None = None
    reading: ReadOptions = ReadOptions()

    @cached_property
    def spec(self) -> TargetSpec:
        """The target that the program is for.

        Raises:
            ConfigError: NM001 to NM006 if there is no such target; NM004 if the model was exported for another.
        """
        from nmtool.target import load_target

        if self.source.form != "export":
            return load_target(self.target or DEFAULT_TARGET)
        made_for = self._exported.target
        spec = load_target(self.target or made_for)
        if spec.name != made_for:
            message = f"was exported for {made_for}, not for {spec.name}"
            hint = "Name the model that it was exported from"
            raise ConfigError("NM004", str(self.source.path), message, hint)
        return spec

    @cached_property
    def graph(self) -> Graph:
        """The NIR graph; that of an exported directory has its weights on the integer grid.

        Raises:
            ModelError: NM1xx if the file is no sound graph, NM107 for a ``.net`` file.
        """
        from nmtool.ir.graph import read

        return read(self.source.nir, self.reading.dt_s, scheme=self.reading.scheme)  # type: ignore[arg-type]

    @cached_property
    def compiled(self) -> Compiled:
        """The graph compiled for the target.

        Raises:
            FindingsError: every violated design rule.
            NmtoolError: NM1xx and NM2xx for what cannot be compiled.
        """
        from nmtool.compiler.compile import compile_graph

        return compile_graph(self.graph, self.spec, self.options)

    @cached_property
    def program(self) -> Program:
        """The integer program: read where there is one, else compiled.

        Raises:
            ModelError: NM101 to NM110 if a file is damaged; otherwise as :attr:`compiled`.
        """
        spec = self.spec  # refuses what was exported for another target
        if self.source.form == "net":
            from nmtool.frontends.netx import read_net

            return read_net(self.source.path, target=spec.name, num_layers=self.reading.layers)
        return self._exported if self.source.form == "export" else self.compiled.program

    @cached_property
    def _exported(self) -> Program:
        from nmtool.compiler import program

        return program.load(self.source.path / PROGRAM_FILE)

    @cached_property
    def interface(self) -> Interface:
        """What the model takes; a program alone does not know its data set."""
        if not self.source.has_graph:
            spec = self.program.input
            bounds = (0.0, spec.x_max * spec.x_scale)
            return Interface(spec.name, spec.shape, spec.encoder, bounds, "", self.program.dt_s)
        model = self.graph.model
        shape = tuple(self.graph.nodes[self.graph.input].out_shape)
        return Interface(self.graph.input, shape, model.encoder, model.bounds, model.data, model.dt_s)


def open_model(
    model: Path | str | Model,
    target: str | None = None,
    options: CompileOptions | None = None,
    reading: ReadOptions = ReadOptions(),
) -> Model:
    """A model by its path; one that is open already is returned as it is.

    Args:
        model: a ``.nir`` or ``.net`` file, a run directory or an exported target directory.
        target: name or file of a target.
        options: the user's choices when compiling.
        reading: the user's choices when reading.

    Raises:
        ConfigError: NM001 if nothing is there, NM008 if a folder holds no model.
    """
    return model if isinstance(model, Model) else Model(locate(model), target, options, reading)


AnyModel = Path | str | Model
"""What functions of this package take as a model."""
