"""What a record must hold so that tables, figures and re-pricing can be drawn from it; more may stand in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Real = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[float, Field(ge=0, le=1e30)]
Whole = Annotated[int, Field(ge=0, le=1 << 62)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Bounds(_Part):
    """Low, nominal, high; None is unknown."""

    low: Real | None
    nominal: Real | None
    high: Real | None


class Spread(_Part):
    """Mean over samples and its interval."""

    mean: Real
    ci95: Annotated[list[Real], Field(min_length=2, max_length=2)] | None


class Weights(_Part):
    """SynOps with and without weights of value 0."""

    stored: Count
    nonzero: Count


class Updates(_Part):
    """Neuron updates of one inference."""

    total: Count
    fill: Count
    active: Bounds


class Events(_Part):
    """What prices are applied to."""

    synops: dict[str, Weights]
    graded_synops: Weights
    host_macs: Count
    spikes: Count
    updates: Updates
    messages: Bounds
    hops_ew: Bounds
    hops_ns: Bounds


class Span(_Part):
    """Fan-out of a layer's sources."""

    min: Real | None
    mean: Real | None
    max: Real | None


class Load(_Part):
    """What one core does in an inference; SynOps by format beside these."""

    __pydantic_extra__: dict[str, Real]
    updates: Count
    active: Count
    spikes: Count


class Layer(_Part):
    """One population and what flows into it."""

    name: str
    type: str
    n_neurons: Whole
    fanout: Span
    density: Real | None
    spikes: Count
    synops_stored: Spread
    synops_nonzero: Spread
    dense_macs_exact: Count
    dense_macs_naive: Count
    events: Events
    energy_pj: dict[str, Bounds]
    breakdown_pj: dict[str, dict[str, Real | None]]


class Static(_Part):
    """Static power times time."""

    pj: Real | None
    share_of_total: Share | None = None
    step_time_ns: Count | None = None
    null_reason: str | None


class ProfileEnergy(_Part):
    """Energy under one profile."""

    scope: str
    evidence: str
    citation: str
    per_inference_pj: Bounds
    breakdown_pj: dict[str, Bounds]
    static: Static
    accuracy_pct_per_uj: Real | None


class Model(_Part):
    """What ran."""

    target: str
    backend: str


class Dataset(_Part):
    """On what."""

    name: str
    n_samples: Whole


class Run(_Part):
    """How."""

    timesteps: Annotated[int, Field(ge=1, le=1 << 62)]
    fill_steps: Whole
    step_time_s: Real | None
    accuracy_pct: Real | None
    accuracy_at_chance: bool
    accuracy_null_reason: str | None
    input_coding: str


class PlacementUse(_Part):
    """Where."""

    known: bool
    cores: Whole | None
    tiles: Whole | None
    chips: Whole | None


class PerInference(_Part):
    """Counts of one inference."""

    synops_stored: Spread
    synops_nonzero: Spread
    synops_undelivered: Spread | None
    spikes: Spread
    host_macs: Count
    neuron_updates: Count
    messages: Bounds


class Density(_Part):
    """The four densities."""

    net: Real | None
    mean_of_layers: Real | None
    syn: Real | None
    input: Real | None


class Counts(_Part):
    """Counts of the run."""

    per_inference: PerInference
    density: Density


class Estimate(_Part):
    """The headline."""

    scope: str | None
    per_inference_pj: Bounds
    profiles: list[str]
    null_reason: str | None


class Reference(_Part):
    """The dense twin."""

    macs_exact: Real | None
    macs_naive: Real | None
    activation_bits: Whole | None
    energy_pj: dict[str, Real | None]
    null_reason: str | None


class Seei(_Part):
    """The index."""

    definition: str
    formula: str
    profile: str
    value: Real | None
    null_reason: str | None
    beside: dict[str, Real | None]


class Warned(_Part):
    """A warning."""

    code: str
    message: str


class EnergyRecord(_Part):
    """``nmtool.energy-report/1``."""

    model: Model
    dataset: Dataset
    run: Run
    placement: PlacementUse
    counts: Counts
    events: Events
    loads: list[Load]
    layers: list[Layer]
    energy: dict[str, ProfileEnergy]
    estimate: Estimate
    reference: Reference
    energy_gain: dict[str, Real | None]
    seei: Seei
    statement: str
    not_included: list[str]
    always_not_included: list[str]
    warnings: list[Warned]


class Divergence(_Part):
    """The first place where two runs differ."""

    step: Whole
    sample: Whole
    neuron: list[Whole] | Whole
    reference: Any
    other: Any


class VerifyLayer(_Part):
    """Agreement of one layer."""

    name: str
    agreement: Real
    spike_ratio: Real | None
    cosine: Real | None
    max_abs_dv: Real | None
    first_divergence: Divergence | None


class VerifyRecord(_Part):
    """``nmtool.verify/1``."""

    reference: str
    other: str
    layers: list[VerifyLayer]
    prediction_agreement: Real | None
    n_samples: Whole
    overflow: dict[str, dict[str, Whole]] = Field(default_factory=dict)
    further: list[VerifyRecord] = Field(default_factory=list)


class Rate(_Part):
    """A share of samples with its interval."""

    value: Share
    low: Share
    high: Share
    n: Whole


class Robustness(_Part):
    """One model under one attack."""

    robust: Rate


class AttackRow(_Part):
    """One attack at one budget."""

    attack: str
    eps: Count
    models: dict[str, Robustness]
    replay: Robustness | None


class WorstCase(_Part):
    """Per-sample minimum over attacks at one budget; a rate per model beside it."""

    __pydantic_extra__: dict[str, Rate]
    eps: Count


class Checked(_Part):
    """One check of the evaluation itself."""

    check: str
    title: str
    status: Literal["pass", "amber", "red"]
    rule: str


class Claim(_Part):
    """Whether the numbers may be quoted."""

    status: str
    reasons: list[str]


class RobustnessRecord(_Part):
    """``nmtool.robustness/1``."""

    clean: dict[str, Rate]
    attacks: list[AttackRow]
    worst_case: list[WorstCase]
    sanity: dict[str, list[Checked]]
    claim: Claim


class FloatAndSim(_Part):
    """One number of the float network, one of the deployed one."""

    float_: Share | None = Field(alias="float", default=None)
    sim: Share | None = None


class Robust(_Part):
    """Robust accuracy by attack."""

    eps: Count | None = None
    claim: str | None = None
    float_: dict[str, Share | None] = Field(alias="float", default_factory=dict)
    sim: dict[str, Share | None] = Field(default_factory=dict)
    replay: dict[str, Share | None] = Field(default_factory=dict)


class Agreement(_Part):
    """Of float and deployed network."""

    agreement: Share | None


class Nominal(_Part):
    """Energy of one inference."""

    nominal: Real | None
    low: Real | None = None
    high: Real | None = None


class SummaryRecord(_Part):
    """``nmtool.summary/1``."""

    accuracy: FloatAndSim
    robust: Robust
    verify: Agreement
    synops_per_inference: Real | None
    spike_density: Real | None
    energy_pj: Nominal
    seei: Real | None
    environment: dict[str, Any]
    command: str
    seed: int | None


RECORDS: dict[str, type[_Part]] = {
    "nmtool.energy-report/1": EnergyRecord,
    "nmtool.robustness/1": RobustnessRecord,
    "nmtool.verify/1": VerifyRecord,
    "nmtool.summary/1": SummaryRecord,
}
