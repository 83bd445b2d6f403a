"""The repository keeps its own rules, and every rule of tools/check_policy.py can fire."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_policy.py"

spec = importlib.util.spec_from_file_location("check_policy", TOOL)
policy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(policy)

LONG = "def f():\n" + "    x = 1\n" * 60

BAD = {
    "prints": ["print('a')", "import sys\nsys.exit(1)", "raise SystemExit(2)"],
    "asserts": ["assert x, 'no'"],
    "broad_except": [
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept Exception as e:\n    log(e)",
        "try:\n    f()\nexcept (ValueError, BaseException):\n    pass",
    ],
    "import_error": ["try:\n    import a\nexcept ModuleNotFoundError:\n    a = None"],
    "dead_strings": ["def f():\n    raise E('a')\n    'b'", "x = 1\nf()\nf'{x}'", "if x:\n    'lost'"],
    "sizes": [LONG, "def f(a, b, c, d, e, f, g, *, h): ..."],
    "pickles": ["import pickle", "from joblib import load", "np.load(p, allow_pickle=True)", "torch.load(p)"],
    "global_randomness": ["x = np.random.rand(3)", "numpy.random.seed(0)", "import random"],
    "chip_numbers": ["limit = 8388607", "v = min(x, 131071)"],
    "checkout_imports": ["import targets", "from tools.bench import f"],
    "places": ["ROOT = '/wor" + "k/data'", "# pip install --index" + "-url x", "'https://py" + "pi.org'"],
    "unfinished": ["# TO" + "DO later", "# FIX" + "ME"],
    "blanket_ignores": ["import os  # no" + "qa", "x = f()  # type: " + "ignore"],
    "long_file": ["x = 1\n" * 401],
}

GOOD = {
    "prints": ["report.print(x)", "sys.exit"],
    "broad_except": [
        "try:\n    f()\nexcept Exception as e:\n    raise Coded from e",
        "try:\n    f()\nexcept OSError:\n    pass",
    ],
    "dead_strings": [
        '"""Doc."""',
        'class A:\n    x: int = 1\n    """What x is."""',
        'def f():\n    """Doc."""',
    ],
    "sizes": [
        LONG.replace("    x = 1\n", "", 1),
        "class A:\n    def f(self, a, b, c, d, e, f, g): ...",
        "@verb(app, 'run')\ndef run(a, b, c, d, e, f, g, h, i): ...",
    ],
    "pickles": ["np.load(p, allow_pickle=False)", "torch.load(p, weights_only=True)"],
    "global_randomness": [
        "np.random.default_rng(1)",
        "def f(r: np.random.Generator): ...",
        "import random_walk",
    ],
    "chip_numbers": ["x = 4095", "x = 1024", "scale = 131071.0"],
    "checkout_imports": ["from .targets import x", "import nmtool.target"],
    "places": ["x = a/work", "# see docs/home.md", "Path('~/tmp')"],
    "blanket_ignores": ["x = f()  # type: ignore[arg-type]", "import os  # noqa: F401"],
    "long_file": ["x = 1\n" * 400],
}

RULES = [rule.__name__ for rule in (*policy.AST_RULES, *policy.TEXT_RULES)]


def findings(text: str, name: str = "nmtool/example.py") -> set[str]:
    return {line.rpartition("[")[2].rstrip("]") for line in policy.check_text(name, text)}


def test_every_rule_has_an_example() -> None:
    assert sorted(BAD) == sorted(RULES)


@pytest.mark.parametrize(("rule", "text"), [(r, t) for r, texts in BAD.items() for t in texts])
def test_rule_fires(rule: str, text: str) -> None:
    assert rule in findings(text)


@pytest.mark.parametrize(("rule", "text"), [(r, t) for r, texts in GOOD.items() for t in texts])
def test_rule_keeps_quiet(rule: str, text: str) -> None:
    assert rule not in findings(text)


def test_rules_of_the_package_stop_at_its_border() -> None:
    assert findings("assert x\nprint(x)\n", "tests/unit/test_x.py") == set()
    assert findings("print(x)\n", "nmtool/cli/run.py") == set()
    assert findings("x = 131071\n", "nmtool/fixedpoint/ops.py") == set()
    assert findings("x = 1024\n", "nmtool/compiler/place.py") == {"chip_numbers"}


def test_codes_are_listed_and_used() -> None:
    a, b, c = (f"NM{n}" for n in (901, 902, 903))
    texts = {"nmtool/errors.py": f'CODES: dict = {{\n    "{a}": "x",\n    "{b}": "y",\n}}\n',
             "nmtool/x.py": f'raise E("{a}")\n', "README.md": f"see {c}\n"}  # fmt: skip
    assert policy.check_codes(texts) == [
        f"README.md:1: {c} does not stand in errors.CODES [codes]",
        f"nmtool/errors.py:1: nothing uses {b} [codes]",
    ]


def test_allowed_exceptions_are_still_needed() -> None:
    for name, rule in policy.ALLOWED:
        text = (policy.ROOT / name).read_text(encoding="utf-8")
        run = next(r for r in (*policy.AST_RULES, *policy.TEXT_RULES) if r.__name__ == rule)
        assert list(run(policy.ast.parse(text), name)), f"{name} no longer breaks {rule}"


def test_the_repository_keeps_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    code = policy.main([])
    assert code == 0, capsys.readouterr().out
