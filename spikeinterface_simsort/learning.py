"""Templates learned from clusters: found again in the traces, split, merged, and found once more.

Clusters see each spike by itself, with all that overlaps it, and only spikes that the detector found. Their mean
waveforms are templates, and what is found by these is cleaner: small spikes come back, overlaps are resolved, and two
units of one cluster show. Where the tissue moves, a template is one for each displacement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spikeinterface_simsort.drift import Drift, follow
from spikeinterface_simsort.excerpt import Excerpt
from spikeinterface_simsort.model_rate import join
from spikeinterface_simsort.regrouping import regroup
from spikeinterface_simsort.resampling import SamplingGrid
from spikeinterface_simsort.separation import Separation
from spikeinterface_simsort.template_matching import TemplateMatcher
from spikeinterface_simsort.waveforms import extract_waveforms
from spikeinterface_simsort.whitening import Whitener

# Templates are learned from less of an excerpt where spikes are dense: pieces of it, spread evenly.
MOST_SPIKES, _PIECE_S = 10_000, 10.0
# In all of these rounds but the last, units are split and merged; in the last they are only merged.
_NUM_ROUNDS = 3
# Of a template: its least energy, in units of noise, and number of spikes.
_LEAST_ENERGY, _LEAST_SPIKES = 20.0, 15
_SPIKES_PER_TEMPLATE = 1000
# A large spike reaches beyond the templates by which spikes are found, by these samples before and after. Of so many of
# its spikes, those with the least there, it is taken that nothing overlaps them.
_TAILS, _CLEAN_SHARE = (16, 30), 0.7
# A template that mostly appears after another was subtracted, or at other amplitudes than its own, is a remainder.
_LEAST_FIRST, _USUAL_AMPLITUDES = 0.3, (0.75, 1.35)
# A spike is where its largest deflection is, if that is so many times as large as the one where it was detected.
_CLEARLY_LARGER = 1.1
# Displacements at which templates are made, and how far beyond those at which a unit fired it is extrapolated.
_LEVELS, _BEYOND = np.arange(-2.0, 2.01, 0.25), 0.5


@dataclass(frozen=True)
class Stretch:
    """Pieces of a recording, one after the other, at the networks' rate.

    Attributes
    ----------
    traces : np.ndarray, float32 [num_samples, num_channels]
        In units of noise.
    spikes : np.ndarray, float64 [num_spikes]
        Times of detected spikes that lie in it, in its samples.
    chosen : np.ndarray, int64 [num_spikes]
        Which of all detected spikes they are.
    piece_starts : np.ndarray, int64 [num_pieces]
        First sample of each piece.
    piece_seconds : np.ndarray, float64 [num_pieces]
        When that is, on a clock that runs on over all segments of the recording.
    sampling_frequency : float
        In Hz.
    """

    traces: np.ndarray
    spikes: np.ndarray
    chosen: np.ndarray
    piece_starts: np.ndarray
    piece_seconds: np.ndarray
    sampling_frequency: float

    def seconds(self, samples: np.ndarray) -> np.ndarray:
        """When samples are, on a clock that runs on over all segments."""
        piece = np.clip(np.searchsorted(self.piece_starts, samples, side="right") - 1, 0, None)
        return self.piece_seconds[piece] + (samples - self.piece_starts[piece]) / self.sampling_frequency


@dataclass(frozen=True)
class Templates:
    """Templates, ready to be found, and the units that they belong to.

    Attributes
    ----------
    matcher : TemplateMatcher
        Of all templates.
    units : np.ndarray, int64 [num_templates]
        Unit of each template; -1 if it is none.
    shifts : np.ndarray, float64 [num_templates]
        Samples that its spikes are moved to be aligned like the others of the unit.
    drift : Drift, optional
        Of the tissue; None where it does not move.
    """

    matcher: TemplateMatcher
    units: np.ndarray
    shifts: np.ndarray
    drift: Drift | None


def choose_stretch(
    excerpt: Excerpt, peaks: np.ndarray, *, grid: SamplingGrid, max_spikes: int | None = None
) -> Stretch:
    """Load the whole of an excerpt, or less of it where spikes are dense.

    Parameters
    ----------
    excerpt : Excerpt
        Of a preprocessed recording, in units of noise.
    peaks : np.ndarray, structured [num_peaks]
        Spikes detected in it.
    grid : SamplingGrid
        Of the networks.
    max_spikes : int, optional
        That it holds, about.

    Returns
    -------
    Stretch
    """
    preprocessed = excerpt.recording
    rate = preprocessed.get_sampling_frequency()
    piece = max(round(_PIECE_S * rate), 1)
    pieces = [
        (segment, start, min(start + piece, preprocessed.get_num_samples(segment)))
        for segment in range(preprocessed.get_num_segments())
        for start in range(0, preprocessed.get_num_samples(segment), piece)
    ]
    share = 1.0 if max_spikes is None else max_spikes / max(len(peaks), 1)
    num_chosen = int(np.clip(len(pieces) * share, 1, len(pieces)))
    chosen_pieces = [pieces[index] for index in np.linspace(0, len(pieces) - 1, num_chosen).round().astype("int64")]
    traces, times, chosen, starts, num_samples = [], [], [], [], 0
    for segment, start, end in chosen_pieces:
        margin = grid.margin_frames(0)
        begin = max(start - margin, 0)
        chunk = preprocessed.get_traces(segment_index=segment, start_frame=begin, end_frame=end + margin)
        resampled, first_sample = grid.resample(chunk, first_frame=begin)
        first, last = grid.model_range(start, end)
        traces.append(resampled[first - first_sample : last - first_sample])
        inside = np.flatnonzero(
            (peaks["segment_index"] == segment) & (peaks["sample_index"] >= start) & (peaks["sample_index"] < end)
        )
        times.append(peaks["sample_index"][inside] * grid.up / grid.down - first + num_samples)
        chosen.append(inside)
        starts.append(num_samples)
        num_samples += len(traces[-1])
    return Stretch(
        traces=join(traces),
        spikes=np.concatenate(times),
        chosen=np.concatenate(chosen),
        piece_starts=np.array(starts),
        piece_seconds=np.array([excerpt.seconds[segment] + start / rate for segment, start, _ in chosen_pieces]),
        sampling_frequency=rate * grid.up / grid.down,
    )


def learn_templates(
    stretch: Stretch,
    labels: np.ndarray,
    *,
    whitener: Whitener,
    drift: Drift | None,
    num_before: int,
    num_samples: int,
    seed: int,
    num_threads: int = 1,
) -> Templates | None:
    """Learn the templates of a recording, beginning with clusters.

    Parameters
    ----------
    stretch : Stretch
        What is learned from.
    labels : np.ndarray, int [num_peaks]
        Clusters of all detected spikes; -1 is noise.
    whitener : Whitener
        The noise.
    drift : Drift, optional
        Of the tissue; None where it does not move.
    num_before, num_samples : int
        Samples of a template before its peak, and altogether.
    seed : int
        Of what is drawn.
    num_threads : int
        That search the stretch at the same time.

    Returns
    -------
    Templates or None
        None if there is nothing to be learned: no cluster is large enough.
    """

    def displacement(samples: np.ndarray) -> np.ndarray:
        return np.zeros(len(samples)) if drift is None else drift.at(stretch.seconds(samples))

    levels = np.zeros(1) if drift is None else _LEVELS
    duration_s = len(stretch.traces) / stretch.sampling_frequency
    clusters = labels[stretch.chosen]
    trains = [stretch.spikes[clusters == cluster] for cluster in np.unique(clusters[clusters >= 0])]
    for learned in range(_NUM_ROUNDS):
        is_last = learned == _NUM_ROUNDS - 1
        matcher = _matcher(
            stretch,
            trains,
            whitener=whitener,
            displacement=displacement,
            levels=levels,
            num_before=num_before,
            num_samples=num_samples,
        )
        if matcher is None:
            return None
        matches = matcher.find(stretch.traces, displacement=displacement, num_threads=num_threads)
        matches = matches[_used_templates(matches, num_templates=matcher.num_templates)[matches["template"]]]
        matches = matches[matcher.needed(stretch.traces, matches)[matches["template"]]]
        if not len(matches):
            return None
        waveforms, seconds = matcher.cleaned_waveforms(stretch.traces, matches), stretch.seconds(matches["time"])
        labels = matches["template"]
        if learned == 0 and drift is not None:
            labels, drift = regroup(
                waveforms, seconds=seconds, duration_s=duration_s, drift=drift, whitener=whitener, seed=seed
            )
        separation = Separation(
            waveforms,
            labels,
            displacement=displacement(matches["time"]),
            seconds=seconds,
            duration_s=duration_s,
            whitener=whitener,
            sampling_frequency=stretch.sampling_frequency,
            seed=seed,
        )
        # Groups of a moving tissue are split in the next round, when their templates have been found.
        is_whole = is_last or (learned == 0 and drift is not None)
        parts = labels if is_whole else separation.split()
        # Templates that were learned from what templates had found, and fell into no parts, are learned.
        is_last |= learned > 0 and len(np.unique(parts)) == len(np.unique(labels))
        # Where a unit drifts it keeps several templates: it is not merged before they are learned.
        merged, shifts = separation.merge(parts, take_turns=is_last)
        if is_last:
            break
        trains = [matches["time"][merged == unit] + shifts[merged == unit] for unit in np.unique(merged)]
    shifts += _to_largest_deflections(waveforms, merged, shifts, num_before=num_before)
    # Those that are left out must not hide spikes from the others.
    _, first = np.unique(matches["template"], return_index=True)
    found = np.isin(np.arange(matcher.num_templates), matches["template"])
    return Templates(matcher=matcher.only(found), units=merged[first], shifts=shifts[first], drift=drift)


def _to_largest_deflections(
    waveforms: np.ndarray, units: np.ndarray, shifts: np.ndarray, *, num_before: int
) -> np.ndarray:
    """Samples from each spike to the largest deflection of its unit, where it was aligned to a smaller one."""
    offsets = np.zeros(len(units))
    for unit in np.unique(units):
        members = units == unit
        # Those that are to be shifted are aligned differently.
        deflection = np.abs(waveforms[members & (shifts == 0)].mean(axis=0)).max(axis=1)
        around = deflection[max(num_before - 1, 0) : num_before + 2].max()
        if deflection.max() > _CLEARLY_LARGER * around:
            offsets[members] = deflection.argmax() - num_before
    return offsets


def _matcher(
    stretch: Stretch,
    trains: list[np.ndarray],
    *,
    whitener: Whitener,
    displacement: Callable[[np.ndarray], np.ndarray],
    levels: np.ndarray,
    num_before: int,
    num_samples: int,
) -> TemplateMatcher | None:
    """Matcher of the mean waveforms of trains, where these are large enough."""
    templates, deviations = [], []
    for train in trains:
        if len(train) < _LEAST_SPIKES:
            continue
        times = train[:: -(-len(train) // _SPIKES_PER_TEMPLATE)]
        before, after = _TAILS
        wide = extract_waveforms(
            stretch.traces, times, num_before=num_before + before, num_after=num_samples - num_before + after
        )
        waveforms = wide[:, before : before + num_samples]
        displaced = displacement(times)
        mean = follow(waveforms, displaced, precision=whitener.precision)
        own = mean.at(displaced).reshape(len(times), -1)
        scores = own @ whitener.precision
        energies = (scores * own).sum(axis=1)
        energy = float(energies.mean())
        if energy < _LEAST_ENERGY:
            continue
        amplitudes = (waveforms.reshape(len(times), -1) * scores).sum(axis=1) / energies
        low, high = np.percentile(amplitudes, [16, 84])
        # Noise alone spreads the measured amplitudes by the inverse of the energy.
        deviations.append(np.sqrt(max(((high - low) / 2) ** 2 - 1 / energy, 0.0)))
        core = mean.at(np.clip(levels, mean.seen[0] - _BEYOND, mean.seen[1] + _BEYOND))
        tails = [_tail(part) for part in (wide[:, :before], wide[:, before + num_samples :])]
        early, late = (np.broadcast_to(tail, (len(levels), *tail.shape)) for tail in tails)
        templates.append(np.concatenate([early, core, late], axis=1))
    if not templates:
        return None
    return TemplateMatcher(
        np.stack(templates, axis=1),
        levels=levels,
        num_before=num_before,
        tails=_TAILS,
        whitener=whitener,
        deviations=np.array(deviations),
        sampling_frequency=stretch.sampling_frequency,
    )


def _tail(waveforms: np.ndarray) -> np.ndarray:
    """Mean of what comes before, or after, the waveforms of a unit, as far as it is more than noise."""
    energy = (waveforms**2).sum(axis=(1, 2))
    kept = waveforms[energy <= np.quantile(energy, _CLEAN_SHARE)]
    mean = kept.mean(axis=0)
    noise = float(kept.var(axis=0).sum()) / len(kept)
    return mean * np.float32(max(0.0, 1 - noise / max(float((mean**2).sum()), 1e-9)))


def _used_templates(matches: np.ndarray, *, num_templates: int) -> np.ndarray:
    """Which templates are more than what others leave behind, bool [num_templates]."""
    used = np.zeros(num_templates, dtype=bool)
    low, high = _USUAL_AMPLITUDES
    for template in range(num_templates):
        mine = matches[matches["template"] == template]
        if len(mine) >= _LEAST_SPIKES:
            is_first = float(np.mean(mine["iteration"] == 0)) >= _LEAST_FIRST
            used[template] = is_first and low < float(np.median(mine["amplitude"])) < high
    return used
