"""Coded errors and findings: what was found, where, what is allowed, and what to do.

    NmtoolError
    |- ConfigError              NM0xx  exit 2   usage, recipe, file that the user named
    |- ModelError               NM1xx  exit 3   a graph, or a file that should hold one
    |- TargetError              NM2xx  exit 3   what the chip cannot do
    |- BackendUnavailableError  NM3xx  exit 4   Lava, an extra, a board
    |- SimulationError          NM4xx  exit 5   overflow in strict mode, a worker that hangs
    |- EvaluationError          NM5xx  exit 5   a metric or an attack that cannot be believed

Anything else that reaches the command line is a bug of nmtool (exit 70).
Every code stands in :data:`CODES`; ``nmtool explain CODE`` prints its entry.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

EXIT_OK = 0
EXIT_NO = 1
EXIT_USAGE = 2
EXIT_BUG = 70

CODES: dict[str, str] = {
    "NM001": "A file or folder that was named does not exist or cannot be read.",
    "NM002": "An output cannot be written. Nothing that was there before has been changed.",
    "NM003": "A recipe or target file has a key that nmtool does not know.",
    "NM004": "A value in a recipe, a target file or on the command line is outside what is allowed.",
    "NM005": "A recipe, target, data set, backend or attack of that name does not exist.",
    "NM006": "A file is not valid TOML, JSON or npz.",
    "NM007": "A data set is missing or does not have its official layout.",
    "NM008": "A run directory lacks a file that this step needs.",
    "NM009": "A checkpoint is damaged, or belongs to another recipe or other data.",
    "NM101": "The file is not a NIR graph: truncated, another format, or HDF5 with other content.",
    "NM102": "The graph has a node type that nmtool does not know.",
    "NM103": "The node type is known, but an attribute has a value that is not supported.",
    "NM104": "Shapes of connected nodes do not fit.",
    "NM105": "The graph is not sound: dangling edge, no input, no output, unreachable node, algebraic loop.",
    "NM106": "The file does not say something that changes results, and it cannot be inferred.",
    "NM107": "Exporting this module would lose meaning: it has no exact counterpart.",
    "NM108": "A parameter is not finite or has no physical meaning.",
    "NM109": "Spikes or inputs do not fit the model's input.",
    "NM110": "A saved program is damaged or of another version.",
    "NM151": "Lint: the graph is unusual in a way that often means a broken export.",
    "NM201": "A neuron parameter is outside the range of the target's registers.",
    "NM202": "A weight cannot be represented on the target.",
    "NM203": "A core's budget is exceeded.",
    "NM204": "The target cannot do this kind of reset.",
    "NM205": "The target cannot do this operation.",
    "NM206": "Branches arrive at different steps and cannot be balanced.",
    "NM207": "The number is not published for this target.",
    "NM208": "A noise parameter is outside the range of the target's generator.",
    "NM209": "The chip budget is exceeded.",
    "NM210": "A delay is outside the range of the target.",
    "NM251": "Warning: precision is lost, and by how much.",
    "NM301": "The Lava environment is not installed.",
    "NM302": "No Python 3.10 was found for Lava.",
    "NM303": "An optional package is missing.",
    "NM304": "The backend cannot do what was asked of it.",
    "NM305": "Installing the Lava environment failed.",
    "NM401": "A state overflowed; with --strict this is an error.",
    "NM402": "The Lava worker did not answer before its deadline and was stopped.",
    "NM403": "The Lava worker failed.",
    "NM404": "The worker's answer does not follow the protocol.",
    "NM405": "Training produced a value that is not finite.",
    "NM501": "A metric cannot be computed from this run.",
    "NM502": "An attack left its budget.",
    "NM503": "The evaluation is not to be believed, and why.",
    "NM504": "Energy scopes do not match.",
}


def _sentences(*parts: str) -> str:
    """The parts that are not empty, each ended as a sentence."""
    return " ".join(p if p.endswith(("?", "!")) else p.rstrip(".") + "." for p in parts if p)


class NmtoolError(Exception):
    """Base of all errors that nmtool raises on purpose.

    Args:
        code: one of :data:`CODES`.
        where: the node, file or key that the finding is about.
        message: what was found and what is allowed, without trailing full stop.
        hint: what the user can do.
    """

    exit_code = EXIT_BUG

    def __init__(self, code: str, where: str, message: str, hint: str = "") -> None:
        self.code, self.where, self.message, self.hint = code, where, message, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"error[{self.code}] {self.where}: {_sentences(self.message, self.hint)}"

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.code, self.where, self.message, self.hint)


class ConfigError(NmtoolError, ValueError):
    """Usage or configuration is wrong."""

    exit_code = EXIT_USAGE


class ModelError(NmtoolError, ValueError):
    """A model, or the file that should hold one, is not usable."""

    exit_code = 3


class TargetError(NmtoolError, ValueError):
    """The target cannot do what the model asks for."""

    exit_code = 3


class BackendUnavailableError(NmtoolError, ImportError):
    """What executes the program is not there."""

    exit_code = 4


class SimulationError(NmtoolError, RuntimeError):
    """A run began and could not be finished."""

    exit_code = 5


class EvaluationError(NmtoolError, RuntimeError):
    """A number would not mean what its name says."""

    exit_code = 5


@dataclass(frozen=True)
class Diagnostic:
    """One finding. Checks collect these, so that a run reports all of them and not only the first."""

    code: str
    where: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.severity}[{self.code}] {self.where}: {_sentences(self.message, self.hint)}"


class FindingsError(NmtoolError):
    """Several findings at once; the exit code is that of the first error."""

    def __init__(self, findings: Sequence[Diagnostic]) -> None:
        self.findings = tuple(findings)
        first = next(d for d in self.findings if d.severity == "error")
        self.exit_code = {"0": 2, "1": 3, "2": 3, "3": 4, "4": 5, "5": 5}[first.code[2]]
        super().__init__(first.code, first.where, first.message, first.hint)

    def __str__(self) -> str:
        return "\n".join(str(d) for d in self.findings)

    def __reduce__(self) -> tuple[type, tuple[tuple[Diagnostic, ...]]]:  # type: ignore[override]
        return type(self), (self.findings,)


def raise_errors(findings: Iterable[Diagnostic]) -> None:
    """Raise :class:`FindingsError` if any finding is an error; otherwise return."""
    found = tuple(findings)
    if any(d.severity == "error" for d in found):
        raise FindingsError(found)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt name: the nearest known one, else all of them."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(choices)}"
