"""Who may import whom, read from the syntax tree (imports inside functions too), and what stays unloaded."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nmtool

PACKAGE = Path(nmtool.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "_data" not in p.parts)

BASE = {"errors", "provenance", "resources", "config"}
"""What every part may import. Inside the base the order is errors, provenance, resources, config."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "provenance": {"errors"},
    "resources": {"errors"},
    "config": {"errors", "resources"},
    "target_schema": {"errors"},
    "target": BASE | {"target_schema"},
    "lava_env": BASE,
    "surrogate": BASE,
    "fixedpoint": BASE,
    "ir": BASE,
    "data": BASE | {"fixedpoint"},
    "quant": BASE | {"ir", "fixedpoint", "target"},
    "frontends": BASE | {"ir"},
    # .net files hold a program, not a graph
    "frontends.netx": BASE | {"ir.hdf5", "compiler.program", "fixedpoint", "target"},
    "frontends.net_layers": BASE | {"ir.hdf5", "compiler.program", "fixedpoint", "target"},
    "compiler": BASE | {"quant", "ir", "fixedpoint", "target"},
    "backends": BASE | {"compiler.program", "fixedpoint", "target", "lava_env"},
    "backends.reference": BASE | {"fixedpoint", "ir"},
    "twin": BASE | {"ir", "compiler.program", "fixedpoint", "surrogate"},
    "attacks": BASE | {"fixedpoint.encode", "surrogate", "metrics.robustness"},
    "train": BASE | {"attacks", "data", "ir.semantics", "quant.noise", "surrogate"},
    "metrics": BASE | {"backends.base", "compiler.program", "target"},
    "report": BASE | {"metrics"},
    "cli": BASE | {"api", "report", "target", "lava_env", "data.datasets"},
}
"""Part -> what it may import beside itself. The longest name that fits a module decides.

``api`` stands above all of it but ``cli``, which stands on top.
"""

MAY_IMPORT["api"] = set(MAY_IMPORT) - {"cli"}

ONLY_IN = {
    "torch": (
        *("surrogate", "twin", "train", "attacks", "frontends.snntorch", "frontends.slayer"),
        "fixedpoint.kernels",
    ),
    "snntorch": ("train", "frontends.snntorch"),
    "lava": ("backends.lava_worker", "frontends.slayer", "train"),
    "typer": ("cli",),
    "rich": ("cli", "report.text"),
    "matplotlib": ("report",),
    "jinja2": ("report",),
}
HEAVY = ["torch", "snntorch", "lava", "numba", "matplotlib", "sklearn", "scipy", "h5py", "nir"]


def module_name(path: Path) -> str:
    """``backends.sim`` of a file; an ``__init__.py`` has its folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p) for p in FILES}


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports; ``from a import b`` gives ``a.b`` if that is a module, else ``a``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner.removeprefix("nmtool.") in MODULES else base


def inside(name: str, parts: set[str] | tuple[str, ...]) -> bool:
    """Whether a module is one of ``parts`` or below one."""
    return any(name == p or name.startswith(p + ".") for p in parts)


def part_of(name: str) -> str:
    """The longest entry of the table that a module belongs to; its first name if it stands in no entry."""
    found = [p for p in MAY_IMPORT if inside(name, (p,))]
    return max(found, key=len) if found else name.split(".")[0]


def violations(name: str, source: str) -> list[str]:
    """Imports of one module that the tables do not allow."""
    part = part_of(name)
    out = []
    for imported in imports(ast.parse(source)):
        root, _, rest = imported.partition(".")
        if root in ONLY_IN and not inside(name, ONLY_IN[root]):
            out.append(f"nmtool.{name} imports {root}, which belongs into {', '.join(ONLY_IN[root])}")
        if root != "nmtool" or not rest or name == "":
            continue
        allowed = MAY_IMPORT.get(part, set()) | {part.split(".")[0]}
        if not inside(rest, allowed):
            may = ", ".join(sorted(allowed))
            out.append(f"nmtool.{name} imports nmtool.{rest}, but {part} may import {may}")
    return out


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_file_imports_only_what_its_part_may(path: Path) -> None:
    assert violations(module_name(path), path.read_text(encoding="utf-8")) == []


def test_every_package_stands_in_the_table() -> None:
    parts = {part_of(m) for m in MODULES if m}
    assert parts <= set(MAY_IMPORT), "a new part of the package needs a row"
    assert {p.split(".")[0] for p in MAY_IMPORT} <= {m.split(".")[0] for m in MODULES}, "a row has no code"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ir.graph", "from nmtool.target import load_target"),
        ("compiler.lower", "def f():\n    from nmtool.backends import sim"),
        ("backends.sim", "from nmtool.ir import graph"),
        ("backends.sim", "import nmtool.compiler.lower"),
        ("metrics.energy", "from nmtool.backends.sim import SimBackend"),
        ("attacks.pgd", "from nmtool.train import nets"),
        ("target", "import torch"),
        ("api", "import rich"),
        ("train.loop", "from nmtool import api"),
        ("api.running", "from nmtool.cli import ui"),
        ("cli.run", "from nmtool.compiler.program import load"),
        ("newpart.x", "from nmtool.ir import graph"),
    ],
)
def test_a_forbidden_import_is_found(name: str, source: str) -> None:
    assert len(violations(name, source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("backends.reference", "from nmtool.ir import graph"),
        ("backends.sim", "from nmtool.compiler import program"),
        ("backends.sim", "from nmtool.compiler.program import Program"),
        ("errors", "import difflib"),
        ("api", "from nmtool.compiler.lower import x"),
        ("cli.run", "from nmtool import __version__, api"),
    ],
)
def test_an_allowed_import_is_not(name: str, source: str) -> None:
    assert violations(name, source) == []


@pytest.mark.parametrize(
    "code", ["import nmtool", "import nmtool.api", "from nmtool.cli import main; main(['--help'])"]
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    script = f"{code}\nimport sys, json\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {m.split(".")[0] for m in json.loads(done.stderr)}
    assert loaded.isdisjoint(HEAVY)
