"""Numbers as people read them: three significant digits, SI prefixes, a dash where a value is unknown."""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN = "–"

_ENERGY = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
_COUNT = ((1e9, " G"), (1e6, " M"), (1e4, " k"))


def digits(x: float | None) -> str:
    """Three significant digits without exponent notation for ordinary sizes: ``0.222``, ``12.3``, ``1670``."""
    if x is None:
        return UNKNOWN
    if x == 0:
        return "0"
    if abs(x) >= 1000:
        return f"{x:.0f}" if abs(x) < 1e6 else f"{x:.3g}"
    return f"{x:#.3g}".rstrip(".") if abs(x) >= 1e-3 else f"{x:.2e}"


def whole(x: float | None) -> str:
    """A count: exact below 10 000, then ``114 M``."""
    if x is None:
        return UNKNOWN
    for size, prefix in _COUNT:
        if abs(x) >= size:
            return f"{x / (1e3 if prefix == ' k' else size):.3g}{prefix}"
    return str(int(x)) if float(x).is_integer() else digits(x)


def energy_unit(pj: float) -> tuple[float, str]:
    """The unit in which ``pj`` picojoules read best, as (picojoules per unit, name)."""
    return next(((size, name) for size, name in _ENERGY if abs(pj) >= size), (1.0, "pJ"))


def energy(pj: float | None) -> str:
    """``1.97 nJ``."""
    if pj is None:
        return UNKNOWN
    size, name = energy_unit(pj)
    return f"{digits(pj / size)} {name}"


def energy_range(bounds: Mapping[str, float | None]) -> str:
    """``1.68 – 2.09 nJ`` of low and high, in the unit of the high one."""
    low, high = bounds["low"], bounds["high"]
    if low is None or high is None:
        return UNKNOWN
    size, name = energy_unit(high)
    return f"{digits(low / size)} – {digits(high / size)} {name}"


def percent(share: float | None) -> str:
    """A share of one: ``97.25 %``; only all is ``100 %`` and only none is ``0 %``, whatever rounding would say."""
    if share is None:
        return UNKNOWN
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    text = f"{100 * share:.2f}"
    return {"100.00": "> 99.99 %", "0.00": "< 0.01 %"}.get(text, f"{text} %")


def time(ns: float | None) -> str:
    """``187 ns``, ``3.68 ms``."""
    if ns is None:
        return UNKNOWN
    size, name = next(((s, n) for s, n in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")) if ns >= s), (1.0, "ns"))
    return f"{digits(ns / size)} {name}"
