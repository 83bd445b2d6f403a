"""The energy record: what it says when something is unknown, analog, recurrent or silent, and re-pricing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmtool.backends.base import RunResult
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program
from nmtool.errors import ConfigError, EvaluationError
from nmtool.metrics.counting import EnergyOptions
from nmtool.metrics.energy import energy_report, reprice
from nmtool.metrics.pricing import BOUNDS, ratio
from nmtool.report import schema
from nmtool.target import load_profiles, load_target

N, B, T = {"input": 6, "a": 5, "b": 3}, 4, 7


def population(name: str, latency: int = 0) -> Population:
    zero = np.zeros((), np.int32)
    return Population(name, (N[name],), zero + 4096, zero, zero + 10, zero, zero, 1.0, latency)


def connection(source: str, target: str, **kw: Any) -> Connection:
    w = np.random.default_rng(1).integers(-1, 3, (N[target], N[source])).astype(np.int32)
    return Connection(f"{source}-{target}", source, target, "dense", w, **kw)


def program(**kw: Any) -> Program:
    fields: dict[str, Any] = {
        "target": "loihi1", "input": InputSpec("input", (6,), "spikes", T),
        "populations": (population("a"), population("b")),
        "connections": (connection("input", "a"), connection("a", "b")), "host": None, "output": "b",
        "readout": "spike_count",
        "dt_s": 1e-3, "info": {"placement": {"a": [[0, 0, 5]], "b": [[1, 0, 3]]}},
    }  # fmt: skip
    return Program(**{**fields, **kw})


def run(seed: int = 0, **kw: Any) -> RunResult:
    rng = np.random.default_rng(seed)
    counts = {k: rng.integers(0, T + 1, (B, n)) for k, n in N.items()}
    active = {k: np.minimum(T * N[k], counts[k].sum(axis=1) + 3) for k in ("a", "b")}
    fields: dict[str, Any] = {"spike_counts": counts, "active_updates": active, "logits": counts["b"]}
    return RunResult("sim", "abc", T, 1e-3, 3, True, **{**fields, **kw})


def report(p: Program | None = None, r: RunResult | None = None, **kw: Any) -> dict[str, Any]:
    record = energy_report(p or program(), r or run(), load_target("loihi1"), **kw)
    return schema.validate(json.loads(json.dumps(record, allow_nan=False)), "record")


def codes(record: dict[str, Any]) -> set[str]:
    return {w["code"] for w in record["warnings"]}


@pytest.mark.parametrize("profiles", [None, ["horowitz45-fp32"], ["loihi1-sanafe", "truenorth-allin"]])
def test_a_saved_record_priced_again_is_the_same(profiles: list[str] | None) -> None:
    labels = np.arange(B) % 3
    fresh = report(labels=labels, profiles=profiles)
    saved = report(labels=labels)
    assert reprice(saved, load_target("loihi1"), profiles) == fresh


@pytest.mark.parametrize("active", [True, False])
def test_layers_add_up_to_the_network(active: bool) -> None:
    record = report(r=run(active_updates=run().active_updates if active else None))
    for name, whole in record["energy"].items():
        for bound in BOUNDS:
            parts = [layer["energy_pj"][name][bound] for layer in record["layers"]]
            total = whole["per_inference_pj"][bound]
            assert (total is None) == (None in parts)
            if total is not None:
                assert sum(parts) == pytest.approx(total, rel=1e-12)


def test_low_nominal_high_are_in_order() -> None:
    record = report(program(populations=(population("a", 1), population("b", 2))))
    for e in [*record["energy"].values(), record["estimate"]]:
        b = e["per_inference_pj"]
        assert b["low"] <= b["nominal"] <= b["high"]


def test_means_are_over_samples() -> None:
    p, r = program(), run()
    per = report(p, r)["counts"]["per_inference"]["synops_stored"]
    by_hand = r.spike_counts["input"].sum(axis=1) * 5 + r.spike_counts["a"].sum(axis=1) * 3
    assert per["mean"] == by_hand.mean()
    assert (per["min"], per["max"]) == (by_hand.min(), by_hand.max())
    half = 1.959964 * by_hand.std(ddof=1) / np.sqrt(B)
    assert per["ci95"] == pytest.approx([by_hand.mean() - half, by_hand.mean() + half])


def test_unknown_active_updates_have_bounds_and_no_nominal() -> None:
    record = report(r=run(active_updates=None))
    davies = record["energy"]["loihi1-davies2018"]
    assert davies["per_inference_pj"]["nominal"] is None
    assert davies["per_inference_pj"]["low"] < davies["per_inference_pj"]["high"]
    assert "does not tell which neuron updates were active" in davies["null_reason"]["neuron"]
    assert record["estimate"]["per_inference_pj"]["nominal"] is None
    assert record["energy"]["horowitz45-fp32"]["per_inference_pj"]["nominal"] is not None
    assert "NM501" in codes(record)


def test_first_layer_on_the_host_is_multiplications() -> None:
    host = HostLayer(connection("input", "a"), np.zeros(5, np.int64), 0, -4095, 4095)
    p = program(host=host, connections=(connection("a", "b"),), input=InputSpec("input", (6,), "direct", T))
    r = run()
    r = replace(r, spike_counts={k: v for k, v in r.spike_counts.items() if k != "input"})
    record = report(p, r, labels=np.zeros(B, int))
    synops = float(r.spike_counts["a"].sum(axis=1).mean()) * 3
    assert record["run"]["input_coding"] == "bias"
    assert record["counts"]["per_inference"]["host_macs"] == 30
    assert record["energy"]["horowitz45-fp32"]["per_inference_pj"]["nominal"] == pytest.approx(
        30 * 4.6 + synops * 0.9
    )
    assert record["energy"]["loihi1-davies2018"]["breakdown_pj"]["synapse"]["nominal"] == pytest.approx(
        synops * 23.6
    )
    assert record["reference"]["macs_exact"] == 30 + 15
    assert record["counts"]["density"]["syn"] == pytest.approx(synops / (T * 15))
    assert record["counts"]["density"]["input"] is None
    assert any("multiplications on the host" in x for x in record["not_included"])
    assert "NM205" in codes(record)


def test_graded_spikes_are_multiplications_and_have_no_price_on_loihi1() -> None:
    record = report(program(connections=(connection("input", "a", message_bits=8), connection("a", "b"))))
    graded = record["counts"]["per_inference"]["mac_ops"]["mean"]
    assert graded == run().spike_counts["input"].sum(axis=1).mean() * 5
    davies = record["energy"]["loihi1-davies2018"]
    assert davies["per_inference_pj"] == {"low": None, "nominal": None, "high": None}
    assert "graded_synop_pj" in davies["null_reason"]["graded"]
    fp32 = record["energy"]["horowitz45-fp32"]["breakdown_pj"]
    assert fp32["mac"]["nominal"] == pytest.approx(graded * 4.6)


def test_recurrent_network_has_no_dense_twin() -> None:
    record = report(
        program(connections=(connection("input", "a"), connection("a", "a"), connection("a", "b"))),
        labels=np.zeros(B),
    )
    assert record["reference"]["macs_exact"] is None
    assert "a: a recurrent layer has no counterpart" in record["seei"]["null_reason"]
    assert record["energy_gain"] == {"horowitz45-fp32": None, "horowitz45-int8a32": None}


def test_accuracy_decides_whether_there_is_an_index() -> None:
    r = run(logits=np.eye(3)[[0, 1, 2, 0]])
    good = report(r=r, labels=[0, 1, 2, 1])
    assert good["run"]["accuracy_pct"] == 75
    assert good["seei"]["value"] == pytest.approx(0.75 * good["energy_gain"]["horowitz45-fp32"])
    poor = report(r=r, labels=[0, 0, 0, 1])
    assert (poor["seei"]["value"], poor["seei"]["null_reason"]) == (None, "the accuracy is at chance")
    assert poor["energy_gain"]["horowitz45-fp32"] is not None
    assert any("at chance" in w["message"] for w in poor["warnings"])
    none = report(r=r)
    assert (none["seei"]["value"], none["seei"]["null_reason"]) == (None, "no labels were given")
    with pytest.raises(EvaluationError, match=r"NM501.*labels: have shape \(3,\), the run has 4 samples"):
        report(r=r, labels=[0, 1, 2])


def test_a_silent_network_has_no_gain() -> None:
    silent = {k: np.zeros((B, n), np.int64) for k, n in N.items()}
    record = report(r=run(spike_counts=silent), labels=np.zeros(B))
    assert record["energy_gain"]["horowitz45-fp32"] is None
    assert "nothing spiked" in record["seei"]["null_reason"]
    assert record["energy"]["loihi1-davies2018"]["per_inference_pj"]["low"] == pytest.approx(8 * T * 52)


def test_fill_steps_are_in_high_alone() -> None:
    short, long = report(), report(program(populations=(population("a", 1), population("b", 2))))
    a, b = (r["energy"]["loihi1-davies2018"]["per_inference_pj"] for r in (short, long))
    assert (a["low"], a["nominal"]) == (b["low"], b["nominal"])
    assert b["high"] - a["high"] == pytest.approx(8 * 2 * 52)
    static = long["energy"]["loihi1-davies2018"]["static"]
    assert static["pj_with_fill_steps"] == pytest.approx(static["pj"] * (T + 2) / T)
    assert any("filling and draining the pipeline (steps per inference: 2" in x for x in long["not_included"])


def test_a_measured_step_time_replaces_the_lower_bound() -> None:
    given = report(options=EnergyOptions(step_time_s=1e-3))["energy"]["loihi1-davies2018"]["static"]
    assert given["step_time_from"] == "given"
    assert given["pj"] == pytest.approx(104 * 1e6 * T)
    model = report(options=EnergyOptions(step_time_s=1e-12))["energy"]["loihi1-davies2018"]["static"]
    assert model["step_time_from"].startswith("model")


def test_without_a_placement_static_power_is_unknown() -> None:
    static = report(program(info={}))["energy"]["loihi1-davies2018"]["static"]
    assert static["pj"] is None
    assert "placement" in static["null_reason"]


def test_a_membrane_readout_is_no_spiking_layer() -> None:
    record = report(program(readout="membrane"))
    a = run().spike_counts["a"]
    assert record["layers"][1]["density"] is None
    assert record["counts"]["density"]["net"] == pytest.approx(a.sum() / (5 * T * B))


def test_what_went_wrong_in_the_run_is_said() -> None:
    record = report(r=run(overflow={"a": {"v_clipped": 3}}, failures=({"sample": 2, "error": "x"},)))
    assert {"NM401", "NM403", "NM503"} <= codes(record)
    assert record["dataset"]["n_samples"] == B - 1


def test_one_sample_has_no_interval() -> None:
    r = run()
    one = replace(
        r,
        logits=r.logits[:1],
        spike_counts={k: v[:1] for k, v in r.spike_counts.items()},
        active_updates=None,
    )
    assert report(r=one)["counts"]["per_inference"]["synops_stored"]["ci95"] is None


def test_a_target_without_prices_says_so() -> None:
    record = energy_report(program(), run(), load_target("loihi2"))
    assert record["estimate"]["per_inference_pj"] == {"low": None, "nominal": None, "high": None}
    assert record["estimate"]["null_reason"] == "no price per event is published for loihi2"
    assert set(record["energy"]) == {"horowitz45-fp32", "horowitz45-int8a32", "truenorth-allin"}
    with pytest.raises(ConfigError, match="NM005.*no energy per event is published for loihi2"):
        energy_report(program(), run(), load_target("loihi2"), profiles=["loihi1-davies2018"])


def test_a_profile_of_ones_own_prices_what_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(
        'schema = "nmtool.profiles/1"\n[energy.bench]\ndescription = "d"\nscope = "system"\nevidence = "measured"\n'
        'citation = "our bench, 2026"\nsynop_pj = { value = 2, source = "bench" }\n'
    )
    record = report(profiles=[load_profiles(path)["bench"]])
    bench = record["energy"]["bench"]
    synops = record["counts"]["per_inference"]["synops_stored"]["mean"]
    assert bench["per_inference_pj"] == pytest.approx(dict.fromkeys(BOUNDS, 2 * synops))
    assert any("neuron updates (no price in bench)" in x for x in record["not_included"])
    assert record["estimate"]["null_reason"] == "profile loihi1-davies2018 was not asked for"


def test_scopes_are_never_mixed() -> None:
    with pytest.raises(EvaluationError, match="NM504.*'ops' cannot be compared with 'chip-dynamic'"):
        ratio(("ops", 1.0), ("chip-dynamic", 1.0))
    with pytest.raises(EvaluationError, match="NM501.*nothing spiked"):
        ratio(("ops", 1.0), ("ops", 0.0))


def test_not_a_measurement_is_always_said() -> None:
    record = report(profiles=["horowitz45-fp32"])
    assert "A model, not a measurement" in record["statement"]
    assert "the host, its memory and its links" in record["not_included"]


def test_inter_chip_messages_are_counted_and_not_priced() -> None:
    record = report(program(info={"placement": {"a": [[0, 0, 5]], "b": [[128, 0, 3]]}}))
    sent = run().spike_counts["a"].sum(axis=1).mean()
    per = record["counts"]["per_inference"]
    assert per["interchip_messages"]["nominal"] == sent
    assert per["hops_ew"]["nominal"] == per["hops_ns"]["nominal"] == 0
    assert record["placement"]["chips"] == 2
    assert any("messages between chips" in x for x in record["not_included"])
