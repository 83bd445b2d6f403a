"""What the user may choose when compiling, and the lossy steps that have to be named."""

from __future__ import annotations

from dataclasses import dataclass

from nmtool.errors import ConfigError, did_you_mean
from nmtool.fixedpoint.noise import NoiseModel

LOSSY = {
    "no-noise": "noise that the target cannot produce is dropped",
    "steady-state-bias": "a bias behind a synaptic filter or a delay acts at its steady state from the first step on",
}


@dataclass(frozen=True)
class CompileOptions:
    """Lossy steps happen only when named in ``allow``, and are written into the result.

    Attributes:
        weight_bits: 1..8.
        noise_model: ``uniform8`` is the chip's generator; ``irwin_hall`` sums ``noise_draws`` of it; ``gaussian``
            exists in simulation only.
        noise_draws: draws summed per neuron and step.
        sign_split: positive and negative weights as two synapse stages, which gains one bit and doubles the axons.
        input_bits: resolution of an analog input.
        allow: names from :data:`LOSSY`.

    Raises:
        ConfigError: NM004 or NM005 for a value outside what is allowed.
    """

    weight_bits: int = 8
    noise_model: NoiseModel = "uniform8"
    noise_draws: int = 1
    sign_split: bool = False
    input_bits: int = 8
    allow: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("weight_bits", self.weight_bits, 1, 8),
            ("noise_draws", self.noise_draws, 1, 16),
            ("input_bits", self.input_bits, 1, 16),
        ):
            if not low <= value <= high:
                raise ConfigError("NM004", name, f"is {value}, allowed are {low} to {high}")
        if self.noise_model not in ("uniform8", "irwin_hall", "gaussian"):
            raise ConfigError(
                "NM005",
                "noise_model",
                f"'{self.noise_model}' does not exist",
                did_you_mean(self.noise_model, ("uniform8", "irwin_hall", "gaussian")),
            )
        if self.noise_model == "uniform8" and self.noise_draws != 1:
            raise ConfigError(
                "NM004",
                "noise_draws",
                f"is {self.noise_draws}, but uniform8 is one draw",
                "Choose irwin_hall",
            )
        for name in self.allow - LOSSY.keys():
            raise ConfigError(
                "NM005", "allow", f"no lossy step is called '{name}'", did_you_mean(name, LOSSY)
            )
