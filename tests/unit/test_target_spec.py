"""Target files: what ships, how files extend each other, and what a faulty file gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmtool import resources
from nmtool.errors import ConfigError, FindingsError, NmtoolError, TargetError
from nmtool.target import description, library, load_profiles, load_target
from nmtool.target_schema import SECTIONS

HEAD = 'schema = "nmtool.target/1"\n'
CORES = 'cores = { value = 4, source = "bench notes" }\n'


def write(folder: Path, text: str, name: str = "mine.toml", head: str = HEAD) -> Path:
    """A file; ``<src>`` stands for a source."""
    path = folder / name
    path.write_text(head + text.replace("<src>", 'source = "bench notes"'), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chip.cores", 128), ("chip.cores_per_tile", 4), ("core.max_compartments", 1024), ("core.max_in_axons", 4096),
        ("core.max_out_axons", 4096), ("core.max_synapse_bits", 16384 * 64), ("core.max_compartment_profiles", 32),
        ("core.max_threshold_profiles", 8), ("core.noise_settings", 1), ("neuron.decay_max_q12", 2**12 - 1),
        ("neuron.v_th_man_max", 2**17 - 1), ("neuron.bias_man_min", -4095), ("neuron.bias_man_max", 4095),
        ("neuron.bias_exp_min", 0), ("neuron.bias_exp_max", 7), ("neuron.refractory_min", 1),
        ("neuron.refractory_max", 63),
        ("neuron.state_bits", 24), ("neuron.v_th_shift", 6), ("synapse.mixed_min", -256), ("synapse.mixed_max", 254),
        ("synapse.excitatory_max", 255), ("synapse.inhibitory_min", -255), ("synapse.max_delay_steps", 62),
        ("synapse.block_synapses", 64), ("synapse.block_overhead_bits", 10), ("synapse.word_bits", 64),
        ("noise.exp_min", 1),
        ("noise.exp_max", 23), ("noise.draw_values", 255), ("input.max_payload_bits", 0), ("host.weight_bits", 16),
    ],
)  # fmt: skip
def test_numbers_of_loihi1(key: str, value: int) -> None:
    spec = load_target("loihi1")
    assert spec.number(key) == value
    assert spec.cite(key) == f"targets/loihi1.toml: {key}"
    assert len(spec.source(key)) > 3


def test_lists_and_flags_of_loihi1() -> None:
    spec = load_target("loihi1")
    assert spec.choice("neuron.resets") == ("zero",)
    assert spec.choice("noise.targets") == ("membrane", "current")
    assert spec.numbers("synapse.weight_bits_allowed") == (1, 2, 3, 4, 5, 6, 8)
    assert spec.choice("synapse.weight_bits_allowed") == ("1", "2", "3", "4", "5", "6", "8")
    assert not spec.flag("input.graded")
    assert spec.flag("host.first_layer")


def test_alias_is_the_target_itself() -> None:
    alias, real = load_target("loihi"), load_target("loihi1")
    assert (alias.name, alias.sha256, alias.path) == (real.name, real.sha256, real.path)


def test_loihi2_has_what_is_published_and_no_more() -> None:
    spec = load_target("loihi2")
    assert spec.flag("input.graded")
    assert spec.number("input.max_payload_bits") == 8
    assert not spec.has("core.max_in_axons")
    assert not spec.profiles
    with pytest.raises(
        TargetError, match=r'NM207.*loihi2: core.max_in_axons is not published.*extends = "loihi2"'
    ):
        spec.number("core.max_in_axons")
    with pytest.raises(TargetError, match="NM207.*noise.models"):
        spec.choice("noise.models")
    with pytest.raises(TargetError, match="NM207.*noise.exp_max"):
        spec.cite("noise.exp_max")


@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_everything_that_ships_is_known_and_sourced(name: str) -> None:
    spec = load_target(name)
    assert spec.description
    assert spec.path.name == f"{name}.toml"
    known = {f"{s}.{k}" for s, table in SECTIONS.items() for k in table.model_fields}
    assert set(spec.items) <= known
    assert all(len(item.source) > 3 for item in spec.items.values())
    for profile in (*spec.profiles.values(), *library().values()):
        assert all(len(item.source) > 3 for item in profile.items.values())
        assert len(profile.citation) > 20


def test_the_library_is_no_target() -> None:
    assert set(library()) == {"horowitz45-fp32", "horowitz45-int8a32", "truenorth-allin"}
    assert [p.stem for p in resources.listing("targets")] == ["loihi", "loihi1", "loihi2"]
    assert all(description(p) for p in resources.listing("targets"))
    path = resources.find("targets", "loihi1").parent / "energy" / "generic.toml"
    with pytest.raises(
        ConfigError, match="NM004.*targets/energy/generic.toml: is a library of energy profiles"
    ):
        load_target(path)


def test_code_that_asks_for_a_key_that_cannot_exist() -> None:
    spec = load_target("loihi1")
    with pytest.raises(KeyError, match="core.max_in_axon. Did you mean 'core.max_in_axons'"):
        spec.has("core.max_in_axon")
    with pytest.raises(TypeError, match="neuron.resets holds no number"):
        spec.number("neuron.resets")
    with pytest.raises(TypeError, match="chip.cores holds no flag"):
        spec.flag("chip.cores")


def test_extends_replaces_single_entries(tmp_path: Path) -> None:
    changes = (
        'extends = "loihi1"\n[core]\nmax_in_axons = { value = 512, <src> }\n'
        "[energy.loihi1-davies2018]\nsynop_pj = { value = 1.5, <src> }\n"
    )
    path = write(tmp_path, changes)
    spec, parent = load_target(path), load_target("loihi1")
    assert spec.name == "mine"
    assert spec.number("core.max_in_axons") == 512
    assert spec.cite("core.max_in_axons") == f"{path}: core.max_in_axons"
    assert spec.cite("core.max_compartments") == "targets/loihi1.toml: core.max_compartments"
    assert spec.profile("loihi1-davies2018").get("synop_pj") == 1.5
    assert spec.profile("loihi1-davies2018").get("neuron_idle_pj") == 52
    assert spec.sha256 != parent.sha256
    assert spec.description == parent.description


def test_extends_finds_a_neighbour_first_and_itself_never(tmp_path: Path) -> None:
    write(tmp_path, f'extends = "loihi1"\ndescription = "ours"\n[chip]\n{CORES}', "loihi1.toml")
    child = write(tmp_path, 'extends = "loihi1"\n', "child.toml")
    spec = load_target(child)
    assert spec.number("chip.cores") == 4
    assert spec.description == "ours"
    assert spec.number("core.max_compartments") == 1024


def test_folder_of_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, f'description = "ours"\n[chip]\n{CORES}', "bench.toml")
    monkeypatch.setenv("NMTOOL_TARGETS", str(tmp_path))
    assert load_target("bench").number("chip.cores") == 4
    assert load_target("loihi").name == "loihi1"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[core]\nmax_in_axon = { value = 4, <src> }\n",
         r"NM003.*core.max_in_axon: unknown key. Did you mean 'max_in_axons'"),
        ("[cor]\n", r"NM003.*cor: unknown key. Did you mean 'core'"),
        ("[chip]\ncores = 128\n", r"NM004.*chip.cores: is 128, not a table. Write \{ value"),
        ("[chip]\ncores = { value = 128 }\n", r"NM004.*chip.cores.source: is missing. Write \{ value"),
        ("[chip]\ncores = { value = 128, <src>, sauce = 1 }\n",
         r"NM003.*chip.cores.sauce: unknown key. Did you mean 'source'"),
        ("[chip]\ncores = { value = -1, <src> }\n", r"NM004.*chip.cores.value: is -1: .*greater than or equal to 1"),
        ("[chip]\ncores = { value = 1.5, <src> }\n", r"NM004.*chip.cores.value: is 1.5: .*valid integer"),
        ("[chip]\ncores = { value = true, <src> }\n", r"NM004.*chip.cores.value: is true: .*valid integer"),
        ("[chip]\ncores = { value = 9e99, <src> }\n", r"NM004.*chip.cores.value"),
        ("[input]\ngraded = { value = 1, <src> }\n", r"NM004.*input.graded.value: is 1: .*valid boolean"),
        ("[neuron]\nresets = { value = [\"zreo\"], <src> }\n",
         r"NM004.*neuron.resets.value.0: is \"zreo\": .*'zero', 'subtract'"),
        ("[neuron]\nbias_man_min = { value = 5, <src> }\nbias_man_max = { value = 4, <src> }\n",
         r"NM004.*neuron.bias_man_min is 5, above neuron.bias_man_max, 4"),
        ("a = " + "9" * 5000, r"NM006.*mine.toml: is not valid TOML"),
        ("[chip\n", r"NM006.*mine.toml: is not valid TOML"),
        ("extends = \"loihi3\"\n", r"NM005.*extends: no target of the name 'loihi3'. Did you mean 'loihi"),
        ("extends = 3\n", r"NM004.*extends: is 3, not the name of a target"),
        ("extends = \"mine\"\n", r"NM004.*extends: 'mine' leads back"),
        ("alias_of = \"mine\"\n", r"NM004.*alias_of: 'mine' leads back"),
        ("alias_of = \"loihi1\"\n[chip]\n" + CORES, r"NM003.*chip: unknown key"),
        ("alias_of = \"\"\n", r"NM004.*alias_of"),
        ("[energy.a]\nscope = \"opps\"\nevidence = \"derived\"\ncitation = \"a long citation\"\ndescription = \"x\"\n",
         r"NM004.*energy.a.scope: is \"opps\""),
        ("[estimate]\nnominal = \"nothing\"\n", r"NM005.*estimate.nominal: no energy profile 'nothing'"),
    ],
)  # fmt: skip
def test_faulty_files_are_named(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        load_target(write(tmp_path, text))


def test_all_findings_are_reported(tmp_path: Path) -> None:
    text = '[chip]\ncores = 1\n[core]\nmax_inaxons = 3\n[noise]\nexp_min = { value = "a", source = "abc" }\n'
    with pytest.raises(FindingsError, match="NM003") as caught:
        load_target(write(tmp_path, text))
    assert {d.code for d in caught.value.findings} == {"NM003", "NM004"}
    assert len(caught.value.findings) == 3
    assert caught.value.exit_code == 2


def test_an_error_in_the_parent_names_the_parent(tmp_path: Path) -> None:
    write(tmp_path, "[chip]\ncores = 1\n", "parent.toml")
    child = write(tmp_path, 'extends = "parent"\n')
    with pytest.raises(ConfigError, match="parent.toml: chip.cores"):
        load_target(child)


def test_an_entry_is_replaced_as_a_whole(tmp_path: Path) -> None:
    child = write(tmp_path, 'extends = "loihi1"\n[chip]\ncores = { value = 2 }\n')
    with pytest.raises(ConfigError, match="NM004.*mine.toml: chip.cores.source: is missing"):
        load_target(child)


@pytest.mark.parametrize(("head", "found"), [("", "is missing"), ('schema = "x"\n', 'is "x"')])
def test_schema_is_required(tmp_path: Path, head: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f'NM004.*schema: {found}, expected "nmtool.target/1"'):
        load_target(write(tmp_path, "[chip]\n", head=head))


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NM005.*lohi: no target of that name. Did you mean 'loihi'"):
        load_target("lohi")
    with pytest.raises(ConfigError, match="NM001.*no such file"):
        load_target(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="NM001.*cannot be read"):
        load_profiles(tmp_path)
    with pytest.raises(ConfigError, match="NM005.*horowitz: .*no energy profile"):
        load_target("loihi1").profile("horowitz")
    with pytest.raises(ConfigError, match="NM005.*no energy per event is published for loihi2"):
        load_target("loihi2").profile("loihi1-davies2018")


PROFILE = """
[energy.mine]
description = "a bench"
scope = "{scope}"
evidence = "measured"
citation = "our bench, 2026"
{rest}
"""


@pytest.mark.parametrize(
    ("scope", "rest", "error"),
    [
        ("ops", "ac_pj = { value = 1, <src> }", "NM004.*needs mac_pj and ac_pj"),
        ("ops", "ac_pj = { value = 1, <src> }\nmac_pj = { value = 1, <src> }\nsynop_pj = { value = 1, <src> }",
         "NM504.*counts arithmetic alone cannot price synop_pj"),
        ("chip-dynamic", "synop_pj = { value = 1, <src> }\nmac_pj = { value = 1, <src> }", "NM504.*bare arithmetic"),
        ("chip-total", "all_in = true\nsynop_pj = { value = 1, <src> }\nmessage_pj = { value = 1, <src> }",
         "NM504.*already holds everything cannot price message_pj"),
        ("chip-dynamic", "", "NM004.*needs synop_pj, or all of"),
        ("chip-dynamic", "synop_pj = { value = 1, <src> }\nneuron_idle_pj = { value = 1, <src> }",
         "NM004.*neuron_active_pj and neuron_idle_pj go together"),
        ("chip-dynamic", "synop_pj = { value = 1 }", "NM004.*synop_pj.source: is missing"),
        ("chip-dynamic", "synop_pj = { value = nan, <src> }", "NM004.*synop_pj.value"),
        ("chip-dynamic", "synop_pj = { value = 1, <src> }\nbarrier_ns = { value = [[2, 1], [1, 2]], <src> }",
         "NM004.*tiles of barrier_ns must ascend"),
    ],
)  # fmt: skip
def test_faulty_profiles(tmp_path: Path, scope: str, rest: str, error: str) -> None:
    path = write(tmp_path, PROFILE.format(scope=scope, rest=rest), head='schema = "nmtool.profiles/1"\n')
    with pytest.raises(NmtoolError, match=error):
        load_profiles(path)


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    text = PROFILE.format(scope="system", rest='synop_pj = { value = 3, source = "bench" }')
    found = load_profiles(write(tmp_path, text, head='schema = "nmtool.profiles/1"\n'))
    assert found["mine"].get("synop_pj") == 3
    assert found["mine"].per_format("synop_pj", "conv") == 3
    assert found["mine"].get("message_pj") is None
    assert load_target("loihi1").profile("loihi1-sanafe").per_format("synop_pj", "sparse") == 33.6
