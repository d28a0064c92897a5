"""Noise, templates found in it, and units told apart, on traces whose spikes are known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording

from spikeinterface_simsort import pipeline
from spikeinterface_simsort.drift import Drift
from spikeinterface_simsort.excerpt import choose_excerpt
from spikeinterface_simsort.learning import Stretch, Templates, choose_stretch, learn_templates
from spikeinterface_simsort.params import SimSortParams
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.separation import Difference, Separation, is_bimodal
from spikeinterface_simsort.template_matching import TemplateMatcher, shift_matrix
from spikeinterface_simsort.whitening import Whitener, noise_windows

RATE = 20_000.0
NUM_BEFORE, NUM_SAMPLES = 16, 48


def template(amplitudes: tuple[float, ...], *, width: float = 3.0, shift: float = 0.0) -> np.ndarray:
    """A trough and a slower, smaller peak after it, of so much on each channel."""
    samples = np.arange(NUM_SAMPLES) - NUM_BEFORE - shift
    shape = -np.exp(-((samples / width) ** 2)) + 0.3 * np.exp(-(((samples - 4 * width) / (2 * width)) ** 2))
    return np.float32(shape[:, None] * np.array(amplitudes))


TEMPLATES = np.stack([template((10, 6, 3, 2)), template((3, 5, 10, 7), width=4.0)])


def noise(seconds: float, *, seed: int, num_channels: int = 4) -> np.ndarray:
    """Of unit variance, correlated in time and between channels."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((int(seconds * RATE), num_channels)) + rng.standard_normal((int(seconds * RATE), 1))
    coloured = gaussian_filter1d(white, 1.0, axis=0)
    return np.float32(coloured / coloured.std())


def add_spikes(traces: np.ndarray, times: np.ndarray, waveform: np.ndarray, *, amplitudes: np.ndarray | None = None):
    for index, time in enumerate(times):
        sample = int(np.floor(time))
        shifted = shift_matrix(len(waveform), time - sample) @ waveform
        amplitude = 1.0 if amplitudes is None else amplitudes[index]
        traces[sample - NUM_BEFORE : sample - NUM_BEFORE + len(waveform)] += np.float32(amplitude) * shifted


def spaced_times(num_spikes: int, *, seed: int, spacing: int = 400) -> np.ndarray:
    return 200 + spacing * np.arange(num_spikes) + np.random.default_rng(seed).uniform(0, spacing / 4, num_spikes)


@pytest.fixture(scope="module")
def whitener() -> Whitener:
    windows = noise_windows(noise(20.0, seed=1), [], num_samples=NUM_SAMPLES)
    assert windows is not None
    return Whitener.from_noise(windows)


def matcher_of(
    whitener: Whitener, templates: np.ndarray = TEMPLATES[None], levels: tuple[float, ...] = (0.0,)
) -> TemplateMatcher:
    return TemplateMatcher(
        templates,
        levels=np.array(levels),
        num_before=NUM_BEFORE,
        whitener=whitener,
        deviations=np.full(templates.shape[1], 0.1),
        sampling_frequency=RATE,
    )


def sum_of_both(lag: int) -> np.ndarray:
    """The second template so many samples after the first."""
    return TEMPLATES[0] + np.float32(shift_matrix(NUM_SAMPLES, lag) @ TEMPLATES[1])


def still(samples: np.ndarray) -> np.ndarray:
    return np.zeros(len(samples))


def find(matcher: TemplateMatcher, traces: np.ndarray) -> np.ndarray:
    return matcher.find(traces, displacement=still)


def test_whitened_noise_has_unit_variance_where_it_is_not_weak(whitener: Whitener) -> None:
    windows = noise_windows(noise(20.0, seed=2), [], num_samples=NUM_SAMPLES)
    assert windows is not None
    whitened = windows.reshape(len(windows), -1) @ whitener.root
    variance = np.linalg.eigvalsh(np.cov(whitened, rowvar=False))
    assert variance.max() == pytest.approx(1.0, abs=0.3)
    np.testing.assert_allclose(whitener.root @ whitener.root, whitener.precision, atol=1e-3)


def test_noise_is_taken_where_no_spike_is() -> None:
    traces = noise(10.0, seed=3)
    spikes = np.arange(1000, len(traces) - 1000, 500)
    for spike in spikes:
        traces[spike - 20 : spike + 20] = 1000.0
    windows = noise_windows(traces, spikes, num_samples=NUM_SAMPLES)
    assert windows is not None
    assert len(windows) > 1000
    assert np.abs(windows).max() < 10


def test_no_noise_between_dense_spikes() -> None:
    assert noise_windows(noise(2.0, seed=3), np.arange(0, 40_000, 30), num_samples=NUM_SAMPLES) is None


def test_silent_channels_do_not_disturb_the_noise() -> None:
    traces = noise(10.0, seed=4)
    traces[:, 3] = 0.0
    windows = noise_windows(traces, [], num_samples=NUM_SAMPLES)
    assert windows is not None
    assert np.isfinite(Whitener.from_noise(windows).root).all()


@pytest.mark.parametrize("shift", [-1.5, 0.0, 0.3, 7.0])
def test_shift_matrix_delays(shift: float) -> None:
    moved = shift_matrix(NUM_SAMPLES, shift) @ template((1.0, 0.5))
    np.testing.assert_allclose(moved, template((1.0, 0.5), shift=shift), atol=0.02)


def test_every_spike_is_found_once_with_its_time_and_amplitude(whitener: Whitener) -> None:
    traces = noise(20.0, seed=5)
    times = spaced_times(600, seed=6)
    amplitudes = np.random.default_rng(7).normal(1.0, 0.08, 600)
    add_spikes(traces, times[::2], TEMPLATES[0], amplitudes=amplitudes[::2])
    add_spikes(traces, times[1::2], TEMPLATES[1], amplitudes=amplitudes[1::2])
    matches = find(matcher_of(whitener), traces)
    assert len(matches) == 600
    np.testing.assert_array_equal(matches["template"], np.arange(600) % 2)
    assert np.sqrt(np.mean((matches["time"] - times) ** 2)) < 0.4
    assert np.corrcoef(matches["amplitude"], amplitudes)[0, 1] > 0.65


@pytest.mark.parametrize("lag", [3.3, 6.0, 12.5])
def test_spikes_that_hide_each_other_are_both_found_in_their_places(whitener: Whitener, lag: float) -> None:
    traces, times = noise(20.0, seed=10), spaced_times(300, seed=11)
    add_spikes(traces, times, TEMPLATES[0])
    add_spikes(traces, times + lag, TEMPLATES[1])
    matches = find(matcher_of(whitener), traces)
    for index, truth in enumerate((times, times + lag)):
        mine = matches["time"][matches["template"] == index]
        assert len(mine) == pytest.approx(300, abs=6)
        away = np.abs(mine[:, None] - truth).min(axis=1)
        assert np.mean(away < 1.0) > 0.97


def test_what_a_large_spike_leaves_beyond_its_template_is_no_spike(whitener: Whitener) -> None:
    wide = np.zeros((2, NUM_SAMPLES + 40, 4), dtype="float32")
    wide[:, :NUM_SAMPLES] = TEMPLATES
    wide[0] *= 4
    wide[0, NUM_SAMPLES + 2 : NUM_SAMPLES + 2 + 32] += template((3, 5, 10, 7), width=4.0)[8:40]
    traces, times = noise(20.0, seed=12), spaced_times(300, seed=13)
    add_spikes(traces, times, wide[0])
    with_tails = TemplateMatcher(
        wide[None],
        levels=np.zeros(1),
        num_before=NUM_BEFORE,
        tails=(0, 40),
        whitener=whitener,
        deviations=np.full(2, 0.1),
        sampling_frequency=RATE,
    )
    assert np.sum(find(matcher_of(whitener, wide[None, :, :NUM_SAMPLES]), traces)["template"] == 1) > 200
    matches = find(with_tails, traces)
    np.testing.assert_array_equal(matches["template"], np.zeros(300))
    # What is left in the end is noise.
    cleaned = with_tails.cleaned_waveforms(traces, matches) - with_tails.templates[0, 0]
    assert cleaned.std() == pytest.approx(1.0, abs=0.15)


def test_a_template_of_overlapping_spikes_is_not_needed(whitener: Whitener) -> None:
    traces, times = noise(40.0, seed=14), spaced_times(600, seed=15)
    add_spikes(traces, times[::3], TEMPLATES[0])
    add_spikes(traces, times[1::3], TEMPLATES[1])
    together = times[2::3][:30]
    add_spikes(traces, together, TEMPLATES[0])
    add_spikes(traces, together + np.linspace(5, 11, 30), TEMPLATES[1])
    matcher = matcher_of(whitener, np.stack([*TEMPLATES, sum_of_both(8)])[None])
    matches = find(matcher, traces)
    assert np.sum(matches["template"] == 2) >= 5
    needed = matcher.needed(traces, matches)
    np.testing.assert_array_equal(needed, [True, True, False])
    found = find(matcher.only(needed), traces)
    np.testing.assert_array_equal(np.bincount(found["template"]), [230, 230])


def test_alike_templates_of_two_neurons_are_both_needed(whitener: Whitener) -> None:
    templates = np.stack([template((10, 6, 3, 2)), template((8, 7, 4, 2))])
    traces, times = noise(20.0, seed=16), spaced_times(600, seed=17)
    add_spikes(traces, times[::2], templates[0])
    add_spikes(traces, times[1::2], templates[1])
    matcher = matcher_of(whitener, templates[None])
    assert matcher.needed(traces, find(matcher, traces)).all()


def test_overlapping_spikes_are_both_found(whitener: Whitener) -> None:
    traces = noise(20.0, seed=8)
    times = spaced_times(300, seed=9)
    lags = np.random.default_rng(10).integers(-15, 16, 300)
    add_spikes(traces, times, TEMPLATES[0])
    add_spikes(traces, times + lags, TEMPLATES[1])
    matches = find(matcher_of(whitener), traces)
    for index, train in enumerate((times, times + lags)):
        found = matches["time"][matches["template"] == index]
        hit = [np.abs(found - time).min() < 4 for time in train]
        assert np.mean(hit) > 0.97
        assert len(found) < 1.02 * len(train)


def test_noise_alone_holds_no_spike(whitener: Whitener) -> None:
    assert len(find(matcher_of(whitener), noise(60.0, seed=11))) <= 2


def test_what_is_found_does_not_depend_on_where_traces_begin(whitener: Whitener) -> None:
    traces = noise(8.0, seed=12)
    times = spaced_times(300, seed=13, spacing=500)
    add_spikes(traces, times, TEMPLATES[0])
    matcher, cut = matcher_of(whitener), 31_234
    whole, part = find(matcher, traces), find(matcher, traces[cut:])
    margin = matcher.margin_samples()
    whole, part = whole[whole["time"] > cut + margin], part[part["time"] > margin]
    assert len(whole) > 100
    np.testing.assert_allclose(part["time"] + cut, whole["time"], atol=1e-3)


def test_cleaned_waveforms_hold_one_spike(whitener: Whitener) -> None:
    traces = noise(20.0, seed=14)
    times = spaced_times(300, seed=15)
    add_spikes(traces, times, TEMPLATES[0])
    add_spikes(traces, times + 12, TEMPLATES[1])
    matcher = matcher_of(whitener)
    matches = find(matcher, traces)
    waveforms = matcher.cleaned_waveforms(traces, matches)
    for index in (0, 1):
        mean = waveforms[matches["template"] == index].mean(axis=0)
        assert np.abs(mean - TEMPLATES[index]).max() < 0.5


def test_spikes_at_the_border_are_no_trouble(whitener: Whitener) -> None:
    traces = noise(1.0, seed=16)
    traces[:10] += TEMPLATES[0][NUM_BEFORE : NUM_BEFORE + 10]
    traces[-20:] += TEMPLATES[0][:20]
    matcher = matcher_of(whitener)
    matches = find(matcher, traces)
    assert np.isfinite(matcher.cleaned_waveforms(traces, matches)).all()
    assert len(find(matcher, traces[:0])) == 0


def waveforms_of(mean: np.ndarray, num_spikes: int, *, seed: int) -> np.ndarray:
    windows = noise_windows(noise(30.0, seed=seed), [], num_samples=NUM_SAMPLES)
    assert windows is not None
    chosen = np.random.default_rng(seed).choice(len(windows), num_spikes, replace=False)
    return mean + windows[chosen]


def separation_of(
    waveforms: np.ndarray,
    whitener: Whitener,
    *,
    labels: np.ndarray | None = None,
    displacement: np.ndarray | None = None,
    seconds: np.ndarray | None = None,
) -> Separation:
    num_spikes = len(waveforms)
    return Separation(
        waveforms,
        np.zeros(num_spikes, dtype="int64") if labels is None else labels,
        displacement=np.zeros(num_spikes) if displacement is None else displacement,
        seconds=np.arange(num_spikes) / 10.0 if seconds is None else seconds,
        duration_s=100.0,
        whitener=whitener,
        sampling_frequency=RATE,
        seed=0,
    )


def test_two_units_in_one_are_split_and_not_merged_again(whitener: Whitener) -> None:
    other = template((9, 8, 3, 2))
    waveforms = np.concatenate([waveforms_of(TEMPLATES[0], 400, seed=1), waveforms_of(other, 250, seed=2)])
    truth = np.repeat([0, 1], [400, 250])
    separation = separation_of(waveforms, whitener)
    labels = separation.split()
    assert len(np.unique(labels)) == 2
    agreement = np.mean(labels == truth)
    assert max(agreement, 1 - agreement) > 0.95
    merged, shifts = separation.merge(labels, take_turns=False)
    np.testing.assert_array_equal(merged, labels)
    assert not shifts.any()


def test_two_units_that_overlap_are_split_where_others_say_how_wide_one_is(whitener: Whitener) -> None:
    # 2.9 standard deviations apart: hardly a valley between them, but wider together than each of the others.
    means = [TEMPLATES[0], template((8.7, 7.2, 3, 2)), TEMPLATES[1], template((2, 9, 3, 6), width=3.5)]
    waveforms = np.concatenate([waveforms_of(mean, 600, seed=20 + index) for index, mean in enumerate(means)])
    labels = np.repeat([0, 0, 1, 2], 600)
    seconds = np.random.default_rng(0).uniform(0, 100, 2400)
    parts = separation_of(waveforms, whitener, labels=labels, seconds=seconds).split()
    assert len(np.unique(parts)) == 4
    assert len(np.unique(parts[1200:1800])) == len(np.unique(parts[1800:])) == 1
    agreement = np.mean((parts[:1200] == parts[0]) == (np.arange(1200) < 600))
    assert max(agreement, 1 - agreement) > 0.8


def test_a_unit_that_varies_more_than_others_is_one_if_it_never_fires_within_its_refractory_period(
    whitener: Whitener,
) -> None:
    rng = np.random.default_rng(0)
    change = template((0, 0.55, 0, 0), width=2.0)
    varying = waveforms_of(TEMPLATES[0] + np.float32(rng.uniform(-4, 4, (600, 1, 1))) * change, 600, seed=30)
    others = [waveforms_of(mean, 600, seed=31 + index) for index, mean in enumerate([TEMPLATES[1], 2 * TEMPLATES[0]])]
    waveforms, labels = np.concatenate([varying, *others]), np.repeat([0, 1, 2], 600)
    at_random, apart = rng.uniform(0, 100, 1800), np.tile(np.arange(600) / 6, 3)
    for seconds, num_parts in ((at_random, 2), (apart, 1)):
        parts = separation_of(waveforms, whitener, labels=labels, seconds=seconds).split()
        assert len(np.unique(parts[:600])) == num_parts


@pytest.mark.parametrize("seed", range(4))
def test_one_unit_is_not_split(whitener: Whitener, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Amplitudes and times vary, as they do.
    shapes = np.stack([shift_matrix(NUM_SAMPLES, shift) @ TEMPLATES[0] for shift in rng.uniform(-0.4, 0.4, 500)])
    waveforms = waveforms_of(shapes * rng.normal(1, 0.15, (500, 1, 1)).astype("float32"), 500, seed=seed)
    assert not separation_of(waveforms, whitener).split().any()


def test_halves_of_a_unit_are_merged(whitener: Whitener) -> None:
    waveforms = waveforms_of(TEMPLATES[0], 500, seed=3)
    labels = np.random.default_rng(0).integers(0, 3, 500)
    merged, _ = separation_of(waveforms, whitener).merge(labels, take_turns=False)
    assert len(np.unique(merged)) == 1


def test_unit_that_is_aligned_at_two_times_is_merged_and_moved(whitener: Whitener) -> None:
    late = waveforms_of(shift_matrix(NUM_SAMPLES, 5.0) @ TEMPLATES[0], 200, seed=4)
    waveforms = np.concatenate([waveforms_of(TEMPLATES[0], 400, seed=5), late])
    merged, shifts = separation_of(waveforms, whitener).merge(np.repeat([7, 3], [400, 200]), take_turns=False)
    np.testing.assert_array_equal(merged, 7)
    # The waveform comes late in its window: its spike is later than was thought.
    np.testing.assert_allclose(shifts, np.repeat([0.0, 5.0], [400, 200]), atol=0.3)


def test_unit_that_drifts_is_merged_if_it_looks_like_one_or_the_other(whitener: Whitener) -> None:
    waveforms = np.concatenate(
        [waveforms_of(TEMPLATES[0], 300, seed=6), waveforms_of(template((8, 7.5, 3, 2)), 300, seed=7)]
    )
    labels = np.repeat([0, 1], 300)
    rng = np.random.default_rng(8)
    apart = np.concatenate([rng.uniform(0, 50, 300), rng.uniform(60, 110, 300)])
    for seconds, take_turns, num_units in ((apart, True, 1), (apart, False, 2), (rng.uniform(0, 110, 600), True, 2)):
        separation = separation_of(waveforms, whitener, labels=labels, seconds=seconds)
        assert len(np.unique(separation.merge(labels, take_turns=take_turns)[0])) == num_units


def test_difference_is_of_shape_not_of_noise(whitener: Whitener) -> None:
    separation = separation_of(waveforms_of(TEMPLATES[0], 500, seed=9), whitener)
    mean = waveforms_of(TEMPLATES[0], 300, seed=10).mean(axis=0)
    few = separation.compare(mean, waveforms_of(TEMPLATES[0], 20, seed=11).mean(axis=0), num_spikes=(300, 20))
    assert few.share < 0.12
    assert few.is_none
    half = waveforms_of(TEMPLATES[0] / 2, 300, seed=12).mean(axis=0)
    half = separation.compare(mean, half, num_spikes=(300, 300))
    assert half.amplitude == pytest.approx(0.5, abs=0.02)
    assert half.share < 0.05
    assert not half.is_none
    assert Difference(shift=0.0, share=0.7, amplitude=1.0, distance=5.0).is_clear


def test_bimodal() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    # A cut through one Gaussian makes no two.
    assert not is_bimodal(values, first=values < 0)
    two = np.concatenate([values[:600] - 1.7, values[600:] + 1.7])
    assert is_bimodal(two, first=np.arange(1000) < 600)
    assert not is_bimodal(np.zeros(10), first=np.arange(10) < 5)
    # Two that overlap too much to be seen as two are wider than one can be.
    near = np.concatenate([values[:500] - 1.0, values[500:] + 1.0])
    assert not is_bimodal(near, first=near < 0)
    assert is_bimodal(near, first=near < 0, widest=1.2)
    assert not is_bimodal(values, first=values < 0, widest=1.2)
    assert not is_bimodal(values, first=np.zeros(1000, dtype=bool))


def test_alike_units_are_two_if_they_fire_independently(whitener: Whitener) -> None:
    large, alike = template((40, 24, 12, 8)), template((39, 21, 14, 6))
    rng = np.random.default_rng(2)
    seconds = rng.uniform(0, 60, 1600)
    second = np.arange(1600) % 2 == 1
    waveforms = np.where(second[:, None, None], alike, large) + noise(1600 * NUM_SAMPLES / RATE, seed=3).reshape(
        1600, NUM_SAMPLES, 4
    )
    for train, num_units in ((seconds, 2), (np.where(second, np.roll(seconds, 1) + 0.03, seconds), 1)):
        separation = Separation(
            waveforms,
            np.zeros(1600, dtype="int64"),
            displacement=np.zeros(1600),
            seconds=train,
            duration_s=60.0,
            whitener=whitener,
            sampling_frequency=RATE,
            seed=0,
        )
        assert len(np.unique(separation.merge(separation.split(), take_turns=False)[0])) == num_units


def peaks_of(times: np.ndarray, *, segment: int = 0) -> np.ndarray:
    peaks = np.zeros(len(times), dtype=[("sample_index", "int64"), ("segment_index", "int64")])
    peaks["sample_index"], peaks["segment_index"] = np.round(times), segment
    return peaks


def learn(stretch: Stretch, labels: np.ndarray, *, drift: Drift | None = None) -> Templates | None:
    windows = noise_windows(noise(20.0, seed=1), [], num_samples=NUM_SAMPLES)
    assert windows is not None
    return learn_templates(
        stretch,
        labels,
        whitener=Whitener.from_noise(windows),
        drift=drift,
        num_before=NUM_BEFORE,
        num_samples=NUM_SAMPLES,
        seed=0,
    )


def test_learned_templates_undo_a_wrong_clustering() -> None:
    traces = noise(60.0, seed=17)
    # Far enough from each other that nothing speaks for one neuron whose spikes vary.
    times = spaced_times(800, seed=18, spacing=1400)
    kinds = np.random.default_rng(19).integers(0, 3, 800)
    templates = np.concatenate([TEMPLATES, template((9, 8, 3, 2))[None]])
    for kind in range(3):
        add_spikes(traces, times[kinds == kind], templates[kind])
    # Two units are one cluster, and the third is two.
    labels = np.where(kinds == 1, np.where(np.arange(800) % 2, 1, 2), 0)
    recording = NumpyRecording([traces], RATE)
    grid = SamplingGrid.between(recording_frequency=RATE, model_frequency=RATE)
    stretch = choose_stretch(choose_excerpt(recording), peaks_of(times), grid=grid)
    learned = learn(stretch, labels)
    assert learned is not None
    matches = find(learned.matcher, traces)
    units = learned.units[matches["template"]]
    assert len(np.unique(units[units >= 0])) == 3
    assert len(matches) == pytest.approx(800, rel=0.01)
    for unit in np.unique(units):
        nearest = np.abs(matches["time"][units == unit][:, None] - times).argmin(axis=1)
        assert np.bincount(kinds[nearest]).max() > 0.95 * len(nearest)


def test_nothing_is_learned_from_nothing() -> None:
    recording = NumpyRecording([noise(5.0, seed=20)], RATE)
    grid = SamplingGrid.between(recording_frequency=RATE, model_frequency=RATE)
    stretch = choose_stretch(choose_excerpt(recording), peaks_of(np.array([300.0, 900.0])), grid=grid)
    for labels in (np.array([0, 0]), np.array([-1, -1])):
        assert learn(stretch, labels) is None


def test_stretch_of_a_long_recording_is_spread_over_it() -> None:
    minutes = np.zeros((400 * 1000, 1), dtype="float32")
    minutes[:, 0] = np.arange(len(minutes)) / 1000
    excerpt = choose_excerpt(NumpyRecording([minutes, minutes + 400], 1000.0))
    grid = SamplingGrid.between(recording_frequency=1000.0, model_frequency=1000.0)
    num_pieces = excerpt.recording.get_num_segments()
    peaks = np.concatenate([peaks_of(np.arange(500, 10_000, 1000), segment=piece) for piece in range(num_pieces)])
    stretch = choose_stretch(excerpt, peaks, grid=grid)
    assert len(stretch.traces) == 200_000
    # The traces say what second they are of, on a clock that runs on from one segment to the next.
    seconds = stretch.traces[stretch.spikes.astype("int64"), 0]
    np.testing.assert_allclose(stretch.seconds(stretch.spikes), seconds)
    np.testing.assert_allclose(
        excerpt.seconds[peaks["segment_index"]] + peaks["sample_index"] / 1000, seconds[np.argsort(stretch.chosen)]
    )
    assert seconds.min() < 20 and seconds.max() > 780
    assert np.diff(np.sort(seconds)).max() <= 41


def test_stretch_of_dense_spikes_is_a_part_of_the_excerpt() -> None:
    seconds = np.arange(100_000, dtype="float32")[:, None] / 1000
    recording = NumpyRecording([seconds], 1000.0)
    grid = SamplingGrid.between(recording_frequency=1000.0, model_frequency=1000.0)
    peaks = peaks_of(np.arange(5, 100_000, 10))
    stretch = choose_stretch(choose_excerpt(recording), peaks, grid=grid, max_spikes=5000)
    assert len(stretch.traces) == 50_000 and len(stretch.spikes) == 5000
    # Of all that are there, and at its own times.
    np.testing.assert_allclose(stretch.traces[stretch.spikes.astype("int64"), 0], stretch.seconds(stretch.spikes))
    np.testing.assert_allclose(peaks["sample_index"][stretch.chosen], 1000 * stretch.seconds(stretch.spikes))
    assert stretch.piece_seconds[0] == 0 and stretch.piece_seconds[-1] == 90


def test_stretch_of_a_short_recording_is_all_of_it_at_the_networks_rate() -> None:
    traces = noise(25.0, seed=21)
    recording = NumpyRecording([traces], 30_000.0)
    grid = SamplingGrid.between(recording_frequency=30_000.0, model_frequency=20_000.0)
    stretch = choose_stretch(choose_excerpt(recording), peaks_of(np.array([300.0, 400_000.0])), grid=grid)
    assert len(stretch.traces) == pytest.approx(len(traces) * 2 / 3, abs=2)
    np.testing.assert_allclose(stretch.spikes, [200.0, 800_000 / 3], atol=1)


def test_where_nothing_can_be_learned_clusters_stay(
    trial: tuple[BaseRecording, BaseSorting], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = trial[0].frame_slice(0, int(5 * trial[0].get_sampling_frequency()))
    clusters = pipeline.sort(recording, params=SimSortParams(match_templates=False))
    monkeypatch.setattr(pipeline, "learn_templates", lambda *_, **__: None)
    sorting = pipeline.sort(recording)
    assert len(sorting.unit_ids) > 0
    np.testing.assert_array_equal(sorting.to_spike_vector(), clusters.to_spike_vector())


def test_preset_of_the_paper_matches_no_templates() -> None:
    assert SimSortParams(preset="paper").resolve().match_templates is False
    assert SimSortParams(preset="paper", match_templates=True).resolve().match_templates is True


@pytest.mark.parametrize("seed", range(3))
def test_a_unit_of_few_spikes_stays_one(seed: int) -> None:
    # Templates of a few hundred spikes hold noise, by which spikes can be parted that are of one kind.
    traces = noise(60.0, seed=30 + seed)
    times = spaced_times(350, seed=seed, spacing=3000)
    add_spikes(traces, times, TEMPLATES[0] * 0.7)
    recording = NumpyRecording([traces], RATE)
    grid = SamplingGrid.between(recording_frequency=RATE, model_frequency=RATE)
    learned = learn(choose_stretch(choose_excerpt(recording), peaks_of(times), grid=grid), np.arange(350) % 2)
    assert learned is not None
    assert len(np.unique(learned.units[learned.units >= 0])) == 1
