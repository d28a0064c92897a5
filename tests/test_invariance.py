"""What must not change a sorting: type, gain, chunks, and running it again."""

import tempfile

import numpy as np
import pytest
import spikeinterface.sorters as ss
from spikeinterface.core import NumpyRecording

from spikeinterface_simsort import pipeline


def run(recording, folder, **kwargs):
    return ss.run_sorter("simsort", recording, folder=folder, **kwargs)


def trains(sorting):
    return [sorting.get_unit_spike_train(unit).tolist() for unit in sorting.unit_ids]


@pytest.fixture(scope="module")
def integer_traces(trial):
    """What an amplifier of 0.195 uV a step records of the trial."""
    return np.round(trial[0].get_traces() / 0.195).astype("int16")


@pytest.fixture(scope="module")
def reference(integer_traces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("invariance")
    recording = NumpyRecording([integer_traces], 30000.0).save(folder=folder / "recording")
    return trains(run(recording, folder / "out"))


@pytest.mark.parametrize("version", ["uV", "V", "float64", "offset", "unsigned", "gain property"])
def test_type_and_gain(integer_traces, reference, tmp_path, version):
    traces = {
        "uV": lambda x: (x * 0.195).astype("float32"),
        "V": lambda x: (x * 0.195e-6).astype("float32"),
        "float64": lambda x: x.astype("float64") * 0.195,
        "offset": lambda x: x + np.array([500, -800, 0, 2000], dtype="int16"),
        "unsigned": lambda x: (x.astype("int32") + 32768).astype("uint16"),
        "gain property": lambda x: x,
    }[version](integer_traces)
    recording = NumpyRecording([traces], 30000.0)
    if version == "gain property":
        recording.set_channel_gains(0.195)
        recording.set_channel_offsets(0.0)
    result = trains(run(recording.save(folder=tmp_path / "recording"), tmp_path / "out"))
    assert len(reference) > 1
    assert result == reference


@pytest.mark.parametrize(
    "job_kwargs",
    [
        {"chunk_duration": "0.5s"},
        {"chunk_duration": "1s"},
        {"chunk_duration": "10s"},
        {"chunk_size": 7777},
        {"n_jobs": 2, "chunk_duration": "1s"},
        {"n_jobs": 2, "pool_engine": "process", "mp_context": "spawn"},
    ],
    ids=str,
)
def test_chunks(trial, sorted_trial, tmp_path, job_kwargs):
    assert trains(run(trial[0], tmp_path / "out", job_kwargs=job_kwargs)) == trains(sorted_trial)


def test_spikes_that_are_kept_on_disk(trial, sorted_trial, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_MOST_IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = []
    gather = pipeline.run_nodes_to_disk

    def note_files(*args, **kwargs):
        outputs = gather(*args, **kwargs)
        files.extend(output.base.filename for output in outputs)
        return outputs

    monkeypatch.setattr(pipeline, "run_nodes_to_disk", note_files)
    assert trains(pipeline.sort(trial[0])) == trains(sorted_trial)
    # They were there, and are gone.
    assert len(files) == 3 and all(str(tmp_path) in str(file) for file in files)
    assert not list(tmp_path.iterdir())


def test_again(trial, sorted_trial, tmp_path):
    assert trains(run(trial[0], tmp_path / "out")) == trains(sorted_trial)


def test_seed_is_used(trial, tmp_path):
    first = run(trial[0], tmp_path / "a", seed=1, max_spikes_fit=100)
    again = run(trial[0], tmp_path / "b", seed=1, max_spikes_fit=100)
    other = run(trial[0], tmp_path / "c", seed=2, max_spikes_fit=100)
    assert trains(first) == trains(again)
    # Another sample of spikes is fitted; it finds the same units, spike for spike but a few.
    assert trains(first) != trains(other)


def test_global_random_state_is_untouched(trial, tmp_path):
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    run(trial[0].frame_slice(0, 90000), tmp_path / "out")
    assert np.random.random() == expected  # noqa: NPY002
