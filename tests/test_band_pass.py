"""The band-pass: SciPy's and SpikeInterface's numbers, whatever the chunk."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from spikeinterface.core import NumpyRecording, load
from spikeinterface.preprocessing import bandpass_filter

from spikeinterface_simsort.band_pass import BandPass, butterworth_sections, filter_both_ways, ringing_samples

BANDS = [(300.0, 6000.0, 30000.0), (300.0, 6000.0, 20000.0), (100.0, 14000.0, 30000.0), (1000.0, 1100.0, 32000.0)]


def traces(num_samples: int = 40000, num_channels: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    slow = 500 * np.sin(np.arange(num_samples) / 3000)[:, None]
    return np.round(100 * rng.normal(size=(num_samples, num_channels)) + slow + 1000).astype("int16")


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_design(low: float, high: float, rate: float, order: int) -> None:
    sections, gain = butterworth_sections(low, high, sampling_frequency=rate, order=order)
    expected = signal.butter(order, [low, high], btype="bandpass", fs=rate, output="sos")
    frequencies = np.linspace(1.0, rate / 2 - 1, 500)
    _, response = signal.sosfreqz(expected, frequencies, fs=rate)
    ours = [
        [gain if index == 0 else 1.0, 0.0, -(gain if index == 0 else 1.0), 1.0, *s] for index, s in enumerate(sections)
    ]
    np.testing.assert_allclose(signal.sosfreqz(np.array(ours), frequencies, fs=rate)[1], response, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (300.0, 300.0), (400.0, 300.0), (300.0, 15000.0)])
def test_no_band(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="no band"):
        butterworth_sections(low, high, sampling_frequency=30000.0)


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
@pytest.mark.parametrize("num_channels", [1, 4, 7])
def test_as_spikeinterface(low: float, high: float, rate: float, num_channels: int) -> None:
    recording = NumpyRecording([traces(num_channels=num_channels)], rate)
    expected = bandpass_filter(
        recording, freq_min=low, freq_max=high, filter_order=3, margin_ms=400.0, dtype="float32"
    ).get_traces()
    found = BandPass(recording, low, high).get_traces()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("num_samples", [2, 22, 100, 5000, 90000])
def test_any_length(num_samples: int) -> None:
    sections, gain = butterworth_sections(300.0, 6000.0, sampling_frequency=30000.0)
    given = traces(num_samples)
    found = filter_both_ways(given, sections=sections, gains=np.full(4, gain**2), margin=ringing_samples(sections))
    sos = signal.butter(3, [300.0, 6000.0], btype="bandpass", fs=30000.0, output="sos")
    expected = signal.sosfiltfilt(sos, given, axis=0, padlen=min(21, num_samples - 1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
def test_chunks_do_not_show(low: float, high: float, rate: float) -> None:
    filtered = BandPass(NumpyRecording([traces(), traces(3000)], rate), low, high)
    for segment in (0, 1):
        whole = filtered.get_traces(segment_index=segment)
        for start, end in ((0, 100), (1, 2), (700, 1900), (2000, len(whole)), (0, len(whole) - 1)):
            chunk = filtered.get_traces(segment_index=segment, start_frame=start, end_frame=end)
            np.testing.assert_allclose(chunk, whole[start:end], atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64", "uint16"])
def test_type_and_offset_of_samples_do_not_show(dtype: str) -> None:
    sections, gain = butterworth_sections(300.0, 6000.0, sampling_frequency=30000.0)
    one, other = (
        filter_both_ways(x, sections=sections, gains=np.full(4, gain**2), margin=1000)
        for x in (traces(), (traces() + np.int16(4000)).astype(dtype))
    )
    np.testing.assert_allclose(one[2000:-2000], other[2000:-2000], atol=1e-3)


def test_factors_and_channels() -> None:
    recording = NumpyRecording([traces()], 30000.0, channel_ids=list("abcd"))
    plain = BandPass(recording, 300.0, 6000.0).get_traces()
    scaled = BandPass(recording, 300.0, 6000.0, factors=[1.0, 0.0, -2.0, 0.5])
    expected = plain * np.array([1.0, 0.0, -2.0, 0.5], dtype="float32")
    np.testing.assert_allclose(scaled.get_traces(), expected, atol=1e-4)
    np.testing.assert_allclose(scaled.get_traces(channel_ids=["d", "a"]), expected[:, [3, 0]], atol=1e-4)


def test_it_can_be_saved_and_loaded(tmp_path) -> None:
    recording = NumpyRecording([traces()], 30000.0).save(folder=tmp_path / "raw")
    recording.set_channel_gains(0.5)
    recording.set_channel_offsets(3.0)
    filtered = BandPass(recording, 300.0, 6000.0, factors=np.ones(4))
    assert filtered.get_channel_offsets().tolist() == [0.0] * 4 and filtered.get_annotation("is_filtered")
    filtered.dump(tmp_path / "filtered.json")
    np.testing.assert_array_equal(load(tmp_path / "filtered.json").get_traces(), filtered.get_traces())


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
def test_it_has_rung_out(low: float, high: float, rate: float) -> None:
    sections, gain = butterworth_sections(low, high, sampling_frequency=rate)
    margin = ringing_samples(sections)
    impulse = np.zeros((4 * margin + 1, 1))
    impulse[2 * margin] = 1.0
    response = np.abs(filter_both_ways(impulse, sections=sections, gains=np.full(1, gain**2), margin=margin))
    assert response[:margin].max() < 1e-8 * response.max()
