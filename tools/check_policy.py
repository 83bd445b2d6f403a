"""Rules of this repository that no linter knows; prints one line per violation and exits 1 if there is any.

    python tools/check_policy.py [FILE...]      without files: everything that git would track

A rule is a small function that yields (line, message). What may break one stands in ALLOWED, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 60, 7

Finding = tuple[int, str]
AstRule = Callable[[ast.Module, str], Iterator[Finding]]
TextRule = Callable[[str, str], Iterator[Finding]]

ALLOWED = {
    ("nmtool/cli/verbs.py", "broad_except"): "what nobody foresaw becomes exit code 70",
    (
        "nmtool/backends/lava_worker/serve.py",
        "broad_except",
    ): "every failure becomes an answer, then the worker ends",
    (
        "nmtool/backends/lava_worker/serve.py",
        "prints",
    ): "Lava waits for ever for its processes after a failure",
    ("nmtool/resources.py", "import_error"): "the one place that may find a package missing",
}

REGISTER_LIMITS = {131071, 131072, 8388607, 8388608, 16777215, 16777216}
"""Numbers of a chip that mean nothing else; outside ``fixedpoint`` they come from ``targets/*.toml``."""

CORE_LIMITS = {1024, 4096, 16384}
"""Numbers of a chip that are common elsewhere; they are looked for in the packages that serve a chip."""

SERVING = tuple(f"nmtool/{p}" for p in ("compiler/", "quant/", "twin/", "metrics/", "target"))

CODE = re.compile(r"\bNM\d{3}\b")
PLACES = re.compile(
    r"(?<![\w.~)}])/(?:wor[k]|tm[p]|roo[t]|home/[a-z]|Users/[A-Za-z])\b"
    r"|[p]ypi\.org|[p]ythonhosted\.org|download\.[p]ytorch\.org|--(?:extra-)?[i]ndex-url|--[f]ind-links"
)

# --- rules on the syntax tree of a library file ---


def prints(tree: ast.Module, name: str) -> Iterator[Finding]:
    """Only the command line prints and exits."""
    if name.startswith("nmtool/cli/"):
        return
    for node in ast.walk(tree):
        called = dotted(node.func) if isinstance(node, ast.Call) else ""
        if called in ("print", "sys.exit", "exit", "quit", "os._exit"):
            yield start(node), f"{called}() outside cli/"
        if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
            yield start(node), "SystemExit outside cli/"


def asserts(tree: ast.Module, name: str) -> Iterator[Finding]:
    """An assertion vanishes under -O and names nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield start(node), "assert in library code; raise a coded error"


def broad_except(tree: ast.Module, name: str) -> Iterator[Finding]:
    """A handler for everything must raise again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = caught(node) & {"", "Exception", "BaseException"}
            if broad and not any(isinstance(n, ast.Raise) for n in ast.walk(node)):
                yield start(node), f"except {' '.join(broad)} without raising again"


def import_error(tree: ast.Module, name: str) -> Iterator[Finding]:
    """A missing package is the business of resources.py."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and caught(node) & {"ImportError", "ModuleNotFoundError"}:
            yield start(node), "ImportError is caught in resources.py only (have, require)"


def dead_strings(tree: ast.Module, name: str) -> Iterator[Finding]:
    """A string that stands alone documents what is above it, or is the lost second half of a message."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        for body in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
            statements: list[ast.stmt] = body if isinstance(body, list) else []
            for i, statement in enumerate(statements):
                if not isinstance(statement, ast.Expr) or not is_text(statement.value):
                    continue
                docstring = i == 0 and isinstance(node, documented)
                attribute = (
                    i > 0
                    and isinstance(statements[i - 1], ast.Assign | ast.AnnAssign)
                    and isinstance(node, ast.Module | ast.ClassDef)
                )
                if not (docstring or attribute):
                    yield start(statement), "a string that nothing uses"


def sizes(tree: ast.Module, name: str) -> Iterator[Finding]:
    """One idea per function. A verb of the command line may have as many options as it needs."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            yield start(node), f"{node.name} has {lines} lines, allowed are {MAX_FUNCTION_LINES}"
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        n = sum(a.arg not in ("self", "cls") for a in every)
        verb = any(isinstance(d, ast.Call) and dotted(d.func) == "verb" for d in node.decorator_list)
        if n > MAX_PARAMETERS and not verb:
            yield start(node), f"{node.name} has {n} parameters, allowed are {MAX_PARAMETERS}"


def pickles(tree: ast.Module, name: str) -> Iterator[Finding]:
    """Reading a file must not run code that stands in it."""
    for node in ast.walk(tree):
        for module in imported(node) & {"pickle", "shelve", "dill", "cloudpickle", "joblib", "marshal"}:
            yield start(node), f"import of {module}"
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value for k in node.keywords}
            if is_constant(keywords.get("allow_pickle"), True):
                yield start(node), f"{dotted(node.func)}(allow_pickle=True)"
            if dotted(node.func) == "torch.load" and not is_constant(keywords.get("weights_only"), True):
                yield start(node), "torch.load without weights_only=True"


def global_randomness(tree: ast.Module, name: str) -> Iterator[Finding]:
    """Random numbers come from a generator with a recorded seed."""
    allowed = {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64"}
    for node in ast.walk(tree):
        drawn = dotted(node) if isinstance(node, ast.Attribute) else ""
        if re.fullmatch(r"(np|numpy)\.random\.\w+", drawn) and drawn.rsplit(".", 1)[1] not in allowed:
            yield start(node), f"{drawn} draws from the global generator"
        if "random" in imported(node):
            yield start(node), "import of random, whose generator is global"


def chip_numbers(tree: ast.Module, name: str) -> Iterator[Finding]:
    """Chips are data: their limits stand in targets/*.toml."""
    if name.startswith("nmtool/fixedpoint/"):
        return
    numbers = REGISTER_LIMITS | CORE_LIMITS if name.startswith(SERVING) else REGISTER_LIMITS
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in numbers:
            yield start(node), f"{node.value} is a chip's number; read it from the target or from fixedpoint"


def checkout_imports(tree: ast.Module, name: str) -> Iterator[Finding]:
    """These folders are importable in an editable install and missing from a wheel."""
    for node in ast.walk(tree):
        for module in imported(node) & {"targets", "models", "tools", "tests"}:
            yield start(node), f"import of {module}, which no wheel contains"


# --- rules on the text of any tracked file ---


def places(text: str, name: str) -> Iterator[Finding]:
    """No path of one machine, no host that packages come from."""
    for i, line in enumerate(text.splitlines(), 1):
        if found := PLACES.search(line):
            yield i, f"names a machine's path or a package host ({found.group()})"


def unfinished(text: str, name: str) -> Iterator[Finding]:
    """Work that is left goes into an issue."""
    for i, line in enumerate(text.splitlines(), 1):
        if found := re.search(r"\b(?:TO[D]O|FIX[M]E|XX[X])\b", line):
            yield i, found.group()


def blanket_ignores(text: str, name: str) -> Iterator[Finding]:
    """A check is switched off by its name."""
    for i, line in enumerate(text.splitlines() if name.endswith(".py") else (), 1):
        if re.search(r"#\s*no[q]a(?!:)|#\s*type:\s*[i]gnore(?!\[)", line):
            yield i, "switches every check off; name the one that is meant"


def long_file(text: str, name: str) -> Iterator[Finding]:
    """One idea per file."""
    n = len(text.splitlines())
    if in_library(name) and n > MAX_FILE_LINES:
        yield MAX_FILE_LINES, f"{n} lines, allowed are {MAX_FILE_LINES}"


AST_RULES: tuple[AstRule, ...] = (
    prints,
    asserts,
    broad_except,
    import_error,
    dead_strings,
    sizes,
    pickles,
    global_randomness,
    chip_numbers,
    checkout_imports,
)
TEXT_RULES: tuple[TextRule, ...] = (places, unfinished, blanket_ignores, long_file)


# --- helpers ---


def in_library(name: str) -> bool:
    """Whether the rules of the package apply."""
    return name.startswith("nmtool/") and name.endswith(".py")


def start(node: ast.AST) -> int:
    """The line on which a node begins."""
    return int(getattr(node, "lineno", 1))


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def caught(handler: ast.ExceptHandler) -> set[str]:
    """Names of what a handler takes; an empty name for everything."""
    kind = handler.type
    return {dotted(t) for t in kind.elts} if isinstance(kind, ast.Tuple) else {dotted(kind) if kind else ""}


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that an import statement names; empty for any other node."""
    if isinstance(node, ast.Import):
        return {a.name.split(".")[0] for a in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {(node.module or "").split(".")[0]}
    return set()


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a string, formatted or not."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def is_constant(node: ast.expr | None, value: object) -> bool:
    """Whether a keyword's value is this constant."""
    return isinstance(node, ast.Constant) and node.value is value


def check_text(name: str, text: str) -> list[str]:
    """Findings of all rules for one file, as ``file:line: message [rule]``.

    Args:
        name: path inside the repository, with slashes.
        text: its content.
    """
    found = [(*f, rule.__name__) for rule in TEXT_RULES for f in rule(text, name)]
    if in_library(name):
        tree = ast.parse(text)
        found += [(*f, rule.__name__) for rule in AST_RULES for f in rule(tree, name)]
    kept = [f for f in sorted(found) if (name, f[2]) not in ALLOWED]
    return [f"{name}:{line}: {message} [{rule}]" for line, message, rule in kept]


def check_codes(texts: dict[str, str]) -> list[str]:
    """Codes that are used but not listed, and listed but not used."""
    table = "nmtool/errors.py"
    listed = set(CODE.findall(texts[table].partition("CODES:")[2].partition("\n}")[0]))
    out: list[str] = []
    used: set[object] = set()
    for name, text in texts.items():
        for i, line in enumerate(text.splitlines(), 1):
            unknown = sorted(set(CODE.findall(line)) - listed)
            out += [f"{name}:{i}: {code} does not stand in errors.CODES [codes]" for code in unknown]
        if in_library(name) and name != table:
            used |= {n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)}
    return out + [f"{table}:1: nothing uses {code} [codes]" for code in sorted(listed - used)]


def tracked() -> list[str]:
    """What git tracks or would track; where there is no git, every file that is not hidden or made."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    git = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if git.returncode == 0:
        return sorted(f for f in set(git.stdout.splitlines()) if (ROOT / f).is_file())
    names = (p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file())
    return sorted(n for n in names if not re.match(r"(.*/)?(\.|__pycache__)|(dist|build|runs)/", n))


def read(name: str) -> str | None:
    """A text file's content; None for a binary file."""
    raw = (ROOT / name).read_bytes()
    return None if b"\0" in raw else raw.decode("utf-8", errors="replace")


def main(arguments: Sequence[str]) -> int:
    """Check the named files, or everything."""
    names = [Path(a).resolve().relative_to(ROOT).as_posix() for a in arguments] or tracked()
    texts = {n: t for n in names if (t := read(n)) is not None}
    findings = [line for name, text in texts.items() for line in check_text(name, text)]
    if not arguments:
        findings += check_codes(texts)
    for line in findings:
        print(line)
    print(f"policy: {len(texts)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
