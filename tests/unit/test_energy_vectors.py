"""The hand-computed networks of the energy reference: a dense 4-4-2 net over 3 steps, and a 3x3 convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from energy_samples import energy_record, population, program, toy, toy_run

from nmtool.backends.base import RunResult
from nmtool.compiler.program import Connection
from nmtool.metrics import energy
from nmtool.metrics.synops import count, fan_out
from nmtool.target import library, load_target


def test_synops_of_the_dense_network() -> None:
    c = count(toy(), toy_run())
    assert [int(layer.stored["dense"][0]) for layer in c.layers] == [20, 6]
    assert [int(layer.nonzero["dense"][0]) for layer in c.layers] == [18, 5]
    assert [int(layer.undelivered[0]) for layer in c.layers] == [0, 2]
    assert [layer.macs.exact for layer in c.layers] == [16, 8]


def test_counts_and_densities_of_the_dense_network() -> None:
    r = energy_record()
    per = r["counts"]["per_inference"]
    assert (
        per["synops_stored"]["mean"],
        per["synops_nonzero"]["mean"],
        per["synops_undelivered"]["mean"],
    ) == (26, 23, 2)
    assert per["neuron_updates"] == 18
    assert per["messages"] == {"low": 8, "nominal": 8, "high": 8}
    assert r["counts"]["neurobench"] == {"effective_acs": 23, "effective_macs": 0, "dense": 72}
    assert r["counts"]["density"] == pytest.approx(
        {"net": 4 / 18, "mean_of_layers": (3 / 12 + 1 / 6) / 2, "syn": 26 / 72, "input": 5 / 12}
    )
    assert [layer["density"] for layer in r["layers"]] == pytest.approx([3 / 12, 1 / 6])


def test_davies_energy_of_the_dense_network() -> None:
    davies = energy_record()["energy"]["loihi1-davies2018"]
    assert davies["per_inference_pj"] == pytest.approx({"low": 1679.2, "nominal": 1969.2, "high": 2085.2})
    assert davies["breakdown_pj"]["synapse"]["nominal"] == pytest.approx(613.6)
    assert davies["breakdown_pj"]["neuron"] == pytest.approx({"low": 1052, "nominal": 1342, "high": 1458})
    assert davies["breakdown_pj"]["message"]["nominal"] == pytest.approx(13.6)
    assert davies["per_inference_pj_nonzero"]["nominal"] == pytest.approx(1969.2 - 613.6 + 542.8)


def test_hops_between_cores() -> None:
    """Output core 2 tiles east and 1 tile south of the hidden core: tile 10 of an 8 x 4 grid, cores 40..43."""
    r = energy_record({"hid": [[0, 0, 4]], "out": [[40, 0, 2]]})
    davies = r["energy"]["loihi1-davies2018"]
    assert r["layers"][1]["breakdown_pj"]["loihi1-davies2018"]["message"] == pytest.approx(35.1)
    assert davies["breakdown_pj"]["message"]["nominal"] == pytest.approx(43.6)
    assert davies["per_inference_pj"]["nominal"] == pytest.approx(1999.2)


def test_silicon_fit_of_the_dense_network() -> None:
    """The reference sums hidden messages only (2757.2 pJ) and names 3312.2 pJ with the five input messages."""
    r = energy_record()
    assert r["energy"]["loihi1-sanafe"]["per_inference_pj"]["nominal"] == pytest.approx(3312.2)
    assert r["energy"]["loihi1-sanafe"]["per_inference_pj"]["nominal"] - 5 * 111 == pytest.approx(2757.2)
    assert r["estimate"]["per_inference_pj"] == pytest.approx(
        {
            "low": 1679.2 - 613.6 + 542.8,
            "nominal": 1969.2,
            "high": r["energy"]["loihi1-sanafe"]["per_inference_pj"]["high"],
        }
    )


def test_arithmetic_against_the_dense_twin() -> None:
    r = energy_record()
    assert r["energy"]["horowitz45-fp32"]["per_inference_pj"]["nominal"] == pytest.approx(23.4)
    assert r["energy"]["horowitz45-int8a32"]["per_inference_pj"]["nominal"] == pytest.approx(2.6)
    assert r["reference"]["energy_pj"] == pytest.approx({"horowitz45-fp32": 110.4, "horowitz45-int8a32": 7.2})


def test_all_in_profile_adds_nothing() -> None:
    r = energy_record()["energy"]["truenorth-allin"]
    assert r["per_inference_pj"] == pytest.approx(dict.fromkeys(("low", "nominal", "high"), 26 * 26.0))
    assert set(r["breakdown_pj"]) == {"synapse"}
    assert r["static"]["pj"] is None


def test_index_of_the_dense_network() -> None:
    """SEEI at 90 %: ten samples, nine right, every one with the toy's spikes."""
    one = toy_run()
    ten = replace(
        one,
        logits=np.repeat(one.logits, 10, axis=0),
        spike_counts={k: np.repeat(v, 10, axis=0) for k, v in one.spike_counts.items()},
        last_spikes={k: np.repeat(v, 10, axis=0) for k, v in one.last_spikes.items()},
        active_updates={k: np.repeat(v, 10) for k, v in (one.active_updates or {}).items()},
    )
    r = energy.energy_report(toy(), ten, load_target("loihi1"), labels=[0] * 9 + [1])
    assert r["seei"]["value"] == pytest.approx(0.9 * 110.4 / 23.4)
    assert r["seei"]["value"] == pytest.approx(4.246, abs=5e-4)
    assert r["seei"]["beside"]["horowitz45-int8a32"] == pytest.approx(0.9 * 7.2 / 2.6)
    assert r["energy"]["horowitz45-fp32"]["accuracy_pct_per_uj"] == pytest.approx(90 / 23.4e-6)


def test_step_time_and_static_power_of_the_dense_network() -> None:
    static = energy_record()["energy"]["loihi1-davies2018"]["static"]
    assert static["step_time_ns"] * 3 == pytest.approx(561.8)
    assert static["pj"] == pytest.approx(58427, abs=1)
    assert static["pj"] / 128 == pytest.approx(456.5, abs=0.05)
    assert static["share_of_total"] == pytest.approx(58427.2 / (58427.2 + 1969.2))


def test_analog_first_layer_is_multiplications() -> None:
    events = {
        "synops": {"dense": {"stored": 6, "nonzero": 6}},
        "graded_synops": {"stored": 0, "nonzero": 0},
        "host_macs": 48,
    }
    fp32 = library()["horowitz45-fp32"]
    assert energy.price(events, fp32)["pj"]["nominal"] == pytest.approx(226.2)
    assert energy.price({**events, "host_macs": 16}, fp32)["pj"]["nominal"] == pytest.approx(79.0)


def conv(stride: int = 1) -> Connection:
    size = (4 - 1) // stride + 1
    return Connection(
        "conv", "input", "out", "conv", np.full((2, 1, 3, 3), 2, np.int32),
        in_shape=(1, 4, 4), out_shape=(2, size, size), stride=(stride, stride), padding=(1, 1),
    )  # fmt: skip


def conv_run(neurons: int) -> RunResult:
    x = np.zeros((1, 1, 4, 4), np.int64)
    x[0, 0, 0, 0] = x[0, 0, 1, 1] = 1
    zero = np.zeros((1, neurons), np.int64)
    return RunResult(
        "sim", "", 1, 1e-3, 0, True, zero, {"input": x, "out": zero}, {}, {"out": np.array([18])}
    )


def test_convolution_counts_what_is_inside_the_border() -> None:
    p = program([population("out", (2, 4, 4))], [conv()], (1, 4, 4), placement={"out": [[0, 0, 32]]})
    assert fan_out(conv(), 16).stored.reshape(4, 4).tolist() == [
        [8, 12, 12, 8],
        [12, 18, 18, 12],
        [12, 18, 18, 12],
        [8, 12, 12, 8],
    ]
    r = energy.energy_report(p, conv_run(32), load_target("loihi1"))
    assert r["counts"]["per_inference"]["synops_stored"]["mean"] == 26
    assert (r["reference"]["macs_exact"], r["reference"]["macs_naive"]) == (200, 288)
    davies = r["energy"]["loihi1-davies2018"]["breakdown_pj"]
    assert davies["synapse"]["nominal"] == pytest.approx(613.6)
    assert davies["neuron"] == pytest.approx({"low": 1664, "nominal": 2186, "high": 2592})
    assert davies["message"]["nominal"] == pytest.approx(3.4)
    assert r["energy"]["loihi1-davies2018"]["per_inference_pj"]["nominal"] == pytest.approx(2803.0)


def test_strided_convolution() -> None:
    p = program([population("out", (2, 2, 2))], [conv(2)], (1, 4, 4))
    f = fan_out(conv(2), 16).stored.reshape(4, 4)
    assert (f[0, 0], f[1, 1]) == (2, 8)
    run = conv_run(8)
    assert int(count(p, run).layers[0].stored["conv"][0]) == 10
