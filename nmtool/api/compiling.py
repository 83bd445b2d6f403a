"""Compile a model for a target, or say why it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nmtool import provenance
from nmtool.api.models import MODEL_FILE, PROGRAM_FILE, AnyModel, Model, open_model
from nmtool.errors import ConfigError, Diagnostic, FindingsError, TargetError, raise_errors

EXPORT_RECORD = "export.json"


def finding_text(finding: Mapping[str, Any]) -> str:
    """A finding of a record in the form of all messages."""
    return str(Diagnostic(**finding))


@dataclass(frozen=True)
class Exported:
    """A target directory, and what compiling says about it (``export.json``)."""

    folder: Path
    record: Mapping[str, Any]


def export(model: AnyModel, out: Path | str | None = None) -> Exported:
    """Compile a model and write its target directory.

    Args:
        model: opened for its target (:func:`open_model`), or a path.
        out: the directory; default ``<target>`` beside the model.

    Raises:
        FindingsError: every violated design rule.
        ConfigError: NM002 if the directory cannot be written; NM004 for an exported directory.
        NmtoolError: NM1xx for the model, NM2xx for what the target cannot do.
    """
    from nmtool.compiler import program as programs

    opened = open_model(model)
    if opened.source.form == "export":
        raise ConfigError(
            "NM004", str(opened.source.path), "is an export already", "Name the model it was made from"
        )
    folder = Path(out) if out is not None else opened.source.folder / opened.spec.name
    program = opened.program
    findings = (*_unusual(opened), *_compiler_findings(opened))
    raise_errors(findings)
    provenance.claim_folder(folder)
    if opened.source.has_graph:
        from nmtool.compiler.writeback import write_quantised

        write_quantised(opened.graph, opened.compiled, folder / MODEL_FILE)
    programs.save(program, folder / PROGRAM_FILE)
    record = {
        "schema": "nmtool.export/1",
        "target": opened.spec.name,
        "findings": [asdict(d) for d in findings],
        **_placement(opened),
        "info": program.info,
        **provenance.record(model=program.graph_sha256, program=program.sha256, target=opened.spec.sha256),
    }
    provenance.write_json(folder / EXPORT_RECORD, record)
    return Exported(folder, record)


def check(model: AnyModel) -> dict[str, Any]:
    """Hold a model against its target's design rules; writes nothing.

    Returns:
        record ``nmtool.check/1``: ``passed``, ``findings``, and ``utilisation`` where the model could be placed.

    Raises:
        ModelError: NM1xx if the file is no sound network.
        ConfigError: NM0xx for files and names.
    """
    opened = open_model(model)
    spec, findings = opened.spec, list(_unusual(opened))
    placement: dict[str, Any] = {"utilisation": None, "chip": None}
    try:
        findings += _compiler_findings(opened)
        placement = _placement(opened)
    except FindingsError as e:
        findings += e.findings
    except TargetError as e:
        findings.append(Diagnostic(e.code, e.where, e.message, e.hint))
    return {
        "schema": "nmtool.check/1",
        "target": spec.name,
        "passed": not any(d.severity == "error" for d in findings),
        "findings": [asdict(d) for d in findings],
        **placement,
        **provenance.record(target=spec.sha256),
    }


def _unusual(model: Model) -> tuple[Diagnostic, ...]:
    """What reading the graph noticed; a graph that is not sound is an error here, not a finding."""
    return model.graph.warnings if model.source.has_graph else ()


def _compiler_findings(model: Model) -> tuple[Diagnostic, ...]:
    """What the design rules say of a network, or of a program that was not compiled here."""
    if model.source.form in ("nir", "run"):
        return model.compiled.findings
    from nmtool.compiler.check import check_placement, check_program
    from nmtool.compiler.place import place

    program, spec = model.program, model.spec
    return (*check_program(program, spec), *check_placement(program, place(program, spec), spec))


def _placement(model: Model) -> dict[str, Any]:
    """What of the chip the program uses: the fullest core per population and budget, and cores in all."""
    from nmtool.compiler.place import place

    placement = place(model.program, model.spec)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for core in placement.cores:
        for use in core.uses:
            row = rows.setdefault(
                (core.population, use.name),
                {
                    "population": core.population,
                    "budget": use.name,
                    "cores": 0,
                    "used": 0,
                    "limit": use.limit,
                },
            )
            row["cores"] += 1
            row["used"] = max(row["used"], use.used)
    chip = {
        "cores": placement.n_cores,
        "cores_per_chip": placement.cores_per_chip or None,
        "chips": placement.n_chips,
    }
    return {"utilisation": list(rows.values()), "chip": chip}
