"""Long recordings: units are learned from pieces and found in the whole."""

import numpy as np
import pytest
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording

from spikeinterface_simsort import excerpt, pipeline
from spikeinterface_simsort.excerpt import choose_excerpt


@pytest.fixture
def short_excerpts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings of a few seconds are long ones."""
    monkeypatch.setattr(excerpt, "_WHOLE_S", 12.0)
    monkeypatch.setattr(excerpt, "_EXCERPT_S", 12.0)
    monkeypatch.setattr(excerpt, "_PIECE_S", 2.0)


def test_a_short_recording_is_its_own_excerpt() -> None:
    recording = NumpyRecording([np.zeros((5000, 2), dtype="float32"), np.zeros((3000, 2), dtype="float32")], 1000.0)
    chosen = choose_excerpt(recording)
    assert chosen.is_whole and chosen.recording is recording
    np.testing.assert_array_equal(chosen.seconds, [0.0, 5.0])


@pytest.mark.usefixtures("short_excerpts")
def test_pieces_are_alike_in_length_and_reach_from_the_beginning_to_the_end() -> None:
    segments = [
        np.arange(start, start + length, dtype="float32")[:, None]
        for start, length in ((0, 15300), (15300, 900), (16200, 21000))
    ]
    chosen = choose_excerpt(NumpyRecording(segments, 1000.0))
    lengths = [chosen.recording.get_num_samples(piece) for piece in range(chosen.recording.get_num_segments())]
    assert not chosen.is_whole and len(lengths) == 6
    assert 8000 < sum(lengths) <= 12_000 and max(lengths) <= 2000
    firsts = [chosen.recording.get_traces(segment_index=piece)[0, 0] for piece in range(6)]
    np.testing.assert_allclose(1000 * chosen.seconds, firsts)
    assert firsts[0] == 0 and firsts[-1] + lengths[-1] == 37_200


@pytest.mark.usefixtures("short_excerpts")
def test_spikes_between_the_pieces_are_found(trial: tuple[BaseRecording, BaseSorting]) -> None:
    recording, truth = trial
    assert recording.get_total_duration() > 15
    sorting = pipeline.sort(recording)
    scores = compare_sorter_to_ground_truth(truth, sorting, delta_time=1.0, exhaustive_gt=True).get_performance()
    assert scores["accuracy"].mean() > 0.9


@pytest.mark.usefixtures("short_excerpts")
def test_where_no_piece_teaches_anything_all_is_clustered(
    trial: tuple[BaseRecording, BaseSorting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "learn_templates", lambda *_, **__: None)
    clusters = pipeline.sort(trial[0], params=pipeline.SimSortParams(match_templates=False))
    assert len(clusters.unit_ids) > 0
    np.testing.assert_array_equal(pipeline.sort(trial[0]).to_spike_vector(), clusters.to_spike_vector())
