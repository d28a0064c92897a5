"""To MEArec and back: templates of our neurons, recordings that MEArec makes of them."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import MEArec
import MEAutility
import numpy as np
import pytest
import yaml
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.composition import Trial
from spikeinterface_simsort.simulation.extracellular import lead_field
from spikeinterface_simsort.simulation.mearec_io import (
    cell_type_params,
    from_mearec,
    is_excitatory,
    save_mearec_templates,
    to_mearec_templates,
)
from spikeinterface_simsort.simulation.trials import bundled_bank, to_recording, to_sorting

TROUGH = 64  # 2 ms of MEArec's 32 kHz
LENGTH = 224  # 7 ms


@pytest.fixture(scope="module")
def bank() -> list[NeuronCurrents]:
    return [neuron for neuron in bundled_bank() if neuron.name.startswith(("pyramidal_rs", "stellate_fs"))][::2]


@pytest.fixture(scope="module")
def tetrode_templates(bank: list[NeuronCurrents]) -> MEArec.TemplateGenerator:
    return to_mearec_templates(bank, num_per_neuron=6, min_amplitude_uv=60.0, seed=1)


def recording_params(templates: MEArec.TemplateGenerator, **recordings: Any) -> dict[str, Any]:
    """MEArec's defaults, without what its own function leaves in the home directory, for 5 s of 3 units."""
    defaults = files("MEArec") / "default_params" / "recordings_params.yaml"
    params = yaml.safe_load(defaults.read_text(encoding="utf8"))
    params["spiketrains"].update(n_exc=2, n_inh=1, f_exc=12.0, duration=5.0)
    params["templates"].update(max_amp=1000.0, min_amp=60.0, min_dist=5.0)
    params["cell_types"] = cell_type_params(templates.celltypes)
    params["recordings"].update(recordings)
    params["seeds"] = {"spiketrains": 1, "templates": 2, "convolution": 3, "noise": 4}
    return params


def generate(templates: MEArec.TemplateGenerator, **recordings: Any) -> MEArec.RecordingGenerator:
    params = recording_params(templates, **recordings)
    return MEArec.gen_recordings(tempgen=templates, params=params, verbose=False)


@pytest.fixture(scope="module")
def generated(tetrode_templates: MEArec.TemplateGenerator) -> MEArec.RecordingGenerator:
    return generate(tetrode_templates)


def spike_triggered_means(trial: Trial) -> np.ndarray:
    """Of each unit, with the spikes in the middle, [num_units, 81, num_channels]."""
    means = []
    for unit in range(len(trial.unit_names)):
        samples = np.round(trial.spike_samples[trial.spike_labels == unit]).astype(int)
        samples = samples[(samples >= 40) & (samples < len(trial.traces) - 40)]
        means.append(trial.traces[samples[:, None] + np.arange(-40, 41)].mean(axis=0))
    return np.array(means)


def assert_spikes_are_where_claimed(trial: Trial) -> None:
    for mean, template, peak in zip(spike_triggered_means(trial), trial.templates, trial.template_peak, strict=True):
        assert np.abs(template).max(axis=1).argmax() == peak
        # Neighbours of the peak may be as large but for noise, where it is flat.
        size = np.abs(mean).max(axis=1)
        assert abs(size.argmax() - 40) <= 1
        assert size[40] > 0.95 * size.max()
        expected = template[peak - 20 : peak + 31]
        correlations = [np.corrcoef(mean[lag : lag + 51].ravel(), expected.ravel())[0, 1] for lag in (19, 20, 21)]
        assert np.argmax(correlations) == 1
        assert correlations[1] > 0.98
        assert size[40] == pytest.approx(np.abs(expected).max(), rel=0.1)


# Templates


@pytest.mark.parametrize(("probe", "gain"), [("tetrode", 1.0), ("tetrode-mea-d", 2.0)])
def test_templates_are_lead_field_times_currents(bank: list[NeuronCurrents], probe: str, gain: float) -> None:
    made = to_mearec_templates(bank[:2], probe=probe, num_per_neuron=2, seed=3)
    contacts = MEAutility.return_mea(probe).positions
    np.testing.assert_allclose(MEAutility.return_mea(info=made.info["electrodes"]).positions, contacts)
    assert made.templates.shape == (4, 4, LENGTH)
    for index, template in enumerate(made.templates):
        neuron = bank[index // 2]
        # What LFPy's set_rotation does of the angles that MEArec keeps: about x, then y, then z.
        x, y, z = (Rotation.from_euler(axis, made.rotations[index, i]) for i, axis in enumerate("xyz"))
        field = lead_field(
            neuron,
            soma_position=made.locations[index],
            rotation=(z * y * x).as_matrix(),
            contact_positions=contacts,
        )
        fine = gain * field @ neuron.mean_currents
        times = np.arange(fine.shape[1]) * neuron.dt
        curve = CubicSpline(times, fine, axis=1)
        trough = times[fine.min(axis=0).argmin()]
        # The trough is at the nearest of MEArec's samples, counted from the somatic voltage peak.
        grid = (np.arange(LENGTH) - TROUGH) / 32.0
        origin = neuron.peak_index * neuron.dt
        shifts = [origin + step / 32.0 for step in range(-40, 41)]
        at_trough = min(shifts, key=lambda time: curve(time).min())
        assert abs(at_trough - trough) < 1 / 32.0
        inside = (at_trough + grid > 0) & (at_trough + grid < times[-1])
        error = np.abs(template[:, inside] - curve(at_trough + grid[inside])).max()
        assert error < 0.03 * np.abs(template).max()
        assert np.abs(template[:, ~inside]).max(initial=0.0) < 0.03 * np.abs(template).max()


def test_templates_keep_to_what_is_asked(bank: list[NeuronCurrents]) -> None:
    made = to_mearec_templates(
        bank, probe="tetrode-mea-s", num_per_neuron=3, ylim=(0.0, 20.0), min_amplitude_uv=50.0, seed=0
    )
    assert made.templates.dtype == np.float32
    np.testing.assert_array_equal(made.templates.min(axis=1).argmin(axis=1), TROUGH)
    assert (-made.templates.min(axis=(1, 2)) >= 50.0).all()
    assert (-made.templates.min(axis=(1, 2)) >= made.templates.max(axis=(1, 2))).all()
    # In front of the shank, whose contacts lie in the y-z plane.
    assert ((made.locations[:, 0] >= 10) & (made.locations[:, 0] <= 80)).all()
    assert ((made.locations[:, 1] >= 0) & (made.locations[:, 1] <= 20)).all()
    assert (np.abs(made.locations[:, 2]) <= 48).all()
    contacts = MEAutility.return_mea("tetrode-mea-s").positions
    assert np.linalg.norm(made.locations[:, None] - contacts, axis=2).min() >= 15.0
    assert made.celltypes.tolist() == np.repeat([neuron.name[:-2] for neuron in bank], 3).tolist()
    assert made.info["params"]["xlim"] == [10.0, 80.0]


def test_templates_follow_the_seed(bank: list[NeuronCurrents]) -> None:
    first, again, other = (to_mearec_templates(bank[:1], num_per_neuron=2, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.templates, again.templates)
    assert not np.array_equal(first.templates, other.templates)


def test_insulating_probe_doubles(bank: list[NeuronCurrents]) -> None:
    kwargs = {"num_per_neuron": 1, "min_amplitude_uv": 0.0, "check_shape": False, "seed": 2}
    plain, doubled = (to_mearec_templates(bank[:1], insulating=value, **kwargs) for value in (False, True))
    np.testing.assert_allclose(doubled.templates, 2 * plain.templates, rtol=1e-5)


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_positions_of_ones_own(bank: list[NeuronCurrents], normal: int) -> None:
    positions = np.insert(np.array([[0.0, 0.0], [25.0, 0.0], [50.0, 10.0]]), normal, 5.0, axis=1)
    made = to_mearec_templates(bank[:1], probe=positions, num_per_neuron=2, seed=0)
    electrodes = made.info["electrodes"]
    np.testing.assert_array_equal(MEAutility.return_mea(info=electrodes).positions, positions)
    assert electrodes["plane"] == ["yz", "xz", "xy"][normal]
    assert electrodes["type"] == "wire"
    assert made.templates.shape == (2, 3, LENGTH)


@pytest.mark.parametrize(
    ("name", "excitatory"),
    [
        ("L5_TTPC1_cADpyr232", True),
        ("L5_TTPC1_cADpyr232_1", True),
        ("L6_TPC_L1_cADpyr231", True),
        ("L6_BPC_cADpyr231", True),
        ("L6_IPC_cADpyr231", True),
        ("L4_SS_cADpyr230", True),
        ("L4_SP_cADpyr230", True),
        ("L6_BP_bAC217", False),
        ("L23_LBC_cNAC187", False),
        ("L6_DBC_bIR215", False),
        ("L1_NGC-DA_bNAC219", False),
        ("pyramidal_rs", True),
        ("bipolar_fs", False),
    ],
)
def test_excitatory_types(name: str, excitatory: bool) -> None:
    assert is_excitatory(name) is excitatory
    # MEArec, which looks for parts of names, takes the same view, whichever name comes first.
    portal = ["L6_TPC_L1_cADpyr231", "L6_BP_bAC217", "L23_PC_cADpyr229"]
    others = portal if name.startswith("L") else ["stellate_rs", "stellate_fs"]
    for names in ([name], [name, *others], [*others, name]):
        params = cell_type_params(names)
        found = MEArec.tools.get_binary_cat(names, params["excitatory"], params["inhibitory"])
        assert found.tolist() == ["E" if is_excitatory(each) else "I" for each in names]


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_templates_round_trip(tetrode_templates: MEArec.TemplateGenerator, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"templates{suffix}"
    path.write_text("of old")
    save_mearec_templates(path, tetrode_templates)
    assert list(tmp_path.iterdir()) == [path]
    loaded = MEArec.load_templates(path, return_h5_objects=False)
    for name in ("templates", "locations", "rotations", "celltypes"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tetrode_templates, name), err_msg=name)
    assert loaded.info["params"]["dt"] == 0.03125
    assert list(loaded.info["params"]["cut_out"]) == [2, 5]
    assert loaded.info["electrodes"]["electrode_name"] == "tetrode"


def test_templates_need_a_suffix(tetrode_templates: MEArec.TemplateGenerator, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not"):
        save_mearec_templates(tmp_path / "templates.npz", tetrode_templates)
    assert not list(tmp_path.iterdir())


def test_no_neuron_reaches_the_amplitude(bank: list[NeuronCurrents]) -> None:
    silent = replace(bank[0], scale=1e-9)
    with pytest.raises(ValueError, match="None of 1 neurons reaches"):
        to_mearec_templates([silent])
    with pytest.raises(ValueError, match="None of 0 neurons reaches"):
        to_mearec_templates([])


def test_a_silent_neuron_is_told(bank: list[NeuronCurrents], caplog: pytest.LogCaptureFixture) -> None:
    made = to_mearec_templates([replace(bank[0], scale=1e-9), bank[1]], num_per_neuron=1)
    assert len(made.templates) == 1
    assert f"{bank[0].name} has only 0 of 1 templates" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probe": "no such probe"}, "has no probe"),
        ({"probe": np.zeros((4, 2))}, "num_channels, 3"),
        ({"zlim": (1.0, 0.0)}, "zlim must be"),
        ({"num_per_neuron": 0}, "num_per_neuron must be"),
    ],
)
def test_wrong_arguments(bank: list[NeuronCurrents], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_mearec_templates(bank, **wrong)


# Recordings


def test_filter_in_memory_is_told(
    tetrode_templates: MEArec.TemplateGenerator, caplog: pytest.LogCaptureFixture
) -> None:
    kwargs = {"tempgen": tetrode_templates, "tmp_mode": None, "verbose": False}
    from_mearec(MEArec.gen_recordings(params=recording_params(tetrode_templates, filter=False), **kwargs))
    assert "memmap" not in caplog.text
    from_mearec(MEArec.gen_recordings(params=recording_params(tetrode_templates), **kwargs))
    assert "memmap" in caplog.text


def test_recording_as_trial(generated: MEArec.RecordingGenerator, tetrode_templates: MEArec.TemplateGenerator) -> None:
    trial = from_mearec(generated)
    assert trial.sampling_frequency == 32000.0
    assert trial.traces.shape == (160000, 4)
    assert trial.traces.dtype == np.float32
    assert trial.templates.shape == (3, LENGTH, 4)
    assert (np.diff(trial.spike_samples) >= 0).all()
    assert trial.spike_samples.size == sum(len(train) for train in generated.spiketrains)
    assert [is_excitatory(name) for name in trial.unit_names] == [True, True, False]
    np.testing.assert_array_equal(trial.contact_positions, MEAutility.return_mea("tetrode").positions)
    chosen = generated.template_ids
    np.testing.assert_array_equal(trial.unit_positions, tetrode_templates.locations[chosen])
    assert trial.contact_radius_um == 8.0
    assert_spikes_are_where_claimed(trial)


def test_recording_from_file(generated: MEArec.RecordingGenerator, tmp_path: Path) -> None:
    MEArec.save_recording_generator(generated, tmp_path / "recording.h5")
    loaded, trial = from_mearec(tmp_path / "recording.h5"), from_mearec(generated)
    for name, value in vars(trial).items():
        np.testing.assert_array_equal(getattr(loaded, name), value, err_msg=name)


def test_recording_and_sorting_of_spikeinterface(generated: MEArec.RecordingGenerator) -> None:
    trial = from_mearec(generated)
    recording, sorting = to_recording(trial), to_sorting(trial)
    np.testing.assert_array_equal(recording.get_channel_locations(), trial.contact_positions[:, :2])
    assert sorting.get_property("cell").tolist() == trial.unit_names
    assert sum(len(sorting.get_unit_spike_train(unit)) for unit in sorting.unit_ids) == trial.spike_samples.size


@pytest.mark.parametrize(
    "recordings",
    [
        {"fs": 30000.0},
        {"filter": False},
        {"filter_mode": "lfilter"},
        {"dtype": "int16", "gain": 0.25},
        {"noise_mode": "distance-correlated", "modulation": "template"},
    ],
)
def test_recordings_of_other_settings(tetrode_templates: MEArec.TemplateGenerator, recordings: dict[str, Any]) -> None:
    trial = from_mearec(generate(tetrode_templates, **recordings))
    assert trial.sampling_frequency == recordings.get("fs", 32000.0)
    assert_spikes_are_where_claimed(trial)


def test_silicon_probe_from_saved_templates(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    made = to_mearec_templates(bank, probe="tetrode-mea-d", num_per_neuron=4, min_amplitude_uv=60.0, seed=0)
    save_mearec_templates(tmp_path / "templates.h5", made)
    generated = MEArec.gen_recordings(templates=tmp_path / "templates.h5", params=recording_params(made), verbose=False)
    trial = from_mearec(generated)
    assert_spikes_are_where_claimed(trial)
    # The contacts' plane becomes x-y, with the neurons on one side of it.
    contacts = MEAutility.return_mea("tetrode-mea-d").positions
    np.testing.assert_array_equal(trial.contact_positions[:, :2], contacts[:, 1:])
    np.testing.assert_array_equal(trial.contact_positions[:, 2], 0.0)
    assert (trial.unit_positions[:, 2] >= 10.0).all()
    assert len(np.unique(to_recording(trial).get_channel_locations(), axis=0)) == 4
    # Turning the scene leaves what the contacts see as it was.
    assert trial.unit_rotations is not None
    for unit, index in enumerate(generated.template_ids):
        field = lead_field(
            bank[index // 4],
            soma_position=trial.unit_positions[unit],
            rotation=trial.unit_rotations[unit],
            contact_positions=trial.contact_positions,
        )
        largest = np.abs(2 * field @ bank[index // 4].mean_currents).max(axis=1)
        np.testing.assert_allclose(np.abs(made.templates[index]).max(axis=1), largest, rtol=0.05)


def test_one_unit_one_channel(bank: list[NeuronCurrents], tmp_path: Path) -> None:
    # MEArec drops axes of length 1 from its templates.
    made = to_mearec_templates(bank[:1], probe="monotrode", num_per_neuron=3, min_amplitude_uv=60.0, seed=0)
    params = recording_params(made, noise_level=5)
    params["spiketrains"].update(n_exc=1, n_inh=0)
    generated = MEArec.gen_recordings(tempgen=made, params=params, verbose=False)
    MEArec.save_recording_generator(generated, tmp_path / "recording.h5")
    trial = from_mearec(tmp_path / "recording.h5")
    assert trial.templates.shape == (1, LENGTH, 1)
    assert_spikes_are_where_claimed(trial)


def test_drift_is_taken_from_the_middle(generated: MEArec.RecordingGenerator) -> None:
    still = from_mearec(generated)
    step = np.array([-1, 0, 1])
    fields = ("recordings", "spiketrains", "channel_positions", "template_celltypes")
    drifting = MEArec.RecordingGenerator(
        rec_dict={
            **{name: getattr(generated, name) for name in fields},
            "templates": generated.templates[:, None] * (1 + 0.5 * step)[:, None, None, None],
            "template_locations": generated.template_locations[:, None] + step[:, None],
            "template_rotations": np.repeat(generated.template_rotations[:, None], 3, axis=1),
        },
        info=generated.info,
    )
    trial = from_mearec(drifting)
    np.testing.assert_allclose(trial.templates, still.templates, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(trial.unit_positions, still.unit_positions)
    np.testing.assert_array_equal(trial.unit_rotations, still.unit_rotations)
    np.testing.assert_array_equal(trial.spike_samples, still.spike_samples)


def test_noise_alone(tetrode_templates: MEArec.TemplateGenerator) -> None:
    params = recording_params(tetrode_templates)
    params["spiketrains"].update(n_exc=0, n_inh=0, duration=1.0)
    trial = from_mearec(MEArec.gen_recordings(tempgen=tetrode_templates, params=params, verbose=False))
    assert trial.traces.shape == (32000, 4)
    assert trial.spike_samples.size == len(trial.templates) == len(trial.unit_names) == 0
    assert len(to_sorting(trial).unit_ids) == 0


def test_files_that_are_no_recordings(tetrode_templates: MEArec.TemplateGenerator, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no MEArec recording at"):
        from_mearec(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match="no HDF5 file"):
        from_mearec(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"it lacks \['recordings', 'channel_positions', 'info'\]"):
        from_mearec(tmp_path / "other.h5")
    save_mearec_templates(tmp_path / "templates.h5", tetrode_templates)
    with pytest.raises(ValueError, match="It holds MEArec's templates"):
        from_mearec(tmp_path / "templates.h5")


def test_recordings_of_old_versions(generated: MEArec.RecordingGenerator, tmp_path: Path) -> None:
    path = tmp_path / "recording.h5"
    MEArec.save_recording_generator(generated, path)
    with h5py.File(path, "a") as file:
        file.attrs["mearec_version"] = "1.4.1"
    with pytest.raises(ValueError, match=r"written by MEArec 1\.4\.1"):
        from_mearec(path)
