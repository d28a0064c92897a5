"""The lower panels of the picture of a trial: its traces, their spectrum, and when its units fire."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from scipy.signal import butter, sosfiltfilt, welch

from spikeinterface_simsort.simulation.composition import Trial
from spikeinterface_simsort.simulation.preview_cells import round_length, say, unit_sizes, unit_style

# Height of a unit's row of markers above the traces.
MARK_INCHES = 0.12

_BAND_HZ = (300.0, 6000.0)
# Around a spike, a trace takes its unit's colour; spikes of two units closer than that overlap.
_MARK_MS = (-0.4, 0.8)
_OVERLAP_MS = 0.5
_SPECTRUM_S = 60.0
_MAX_TICKS = 2000
_MAX_CURVES = 6


def draw_traces(axis: Axes, trial: Trial, *, channels: np.ndarray, duration_s: float, height: float) -> None:
    """Draw filtered traces one above the other, and above them a row of markers a unit.

    Parameters
    ----------
    axis : Axes
        Empty.
    trial : Trial
        With at least one sample.
    channels : np.ndarray, [num_drawn]
        Indices of those that are drawn.
    duration_s : float
        Of the stretch that is shown, the one with the most spikes and units.
    height : float
        Of the panel, in inches.
    """
    rate = trial.sampling_frequency
    num_samples = min(max(int(round(duration_s * rate)), 2), len(trial.traces))
    start = _stretch(trial, num_samples=num_samples)
    # The filter runs in before what is shown.
    margin = int(0.05 * rate)
    before = min(start, margin)
    chunk = trial.traces[start - before : start + num_samples + margin][:, channels].astype("float64")
    shown = _filtered(chunk, sampling_frequency=rate)[before : before + num_samples]
    times_ms = np.arange(len(shown)) * 1000.0 / rate
    inside = (trial.spike_samples >= start) & (trial.spike_samples < start + num_samples)
    spikes_ms = (trial.spike_samples[inside] - start) * 1000.0 / rate
    labels = trial.spike_labels[inside]
    step = max(0.75 * float(np.ptp(shown, axis=0).max()), 6.0 * float(np.median(np.std(shown, axis=0))), 1e-3)
    stacked = shown - np.arange(len(channels)) * step
    for row, channel in enumerate(channels):
        axis.plot(times_ms, stacked[:, row], color="0.6", linewidth=0.6, label=f"channel {channel}", zorder=2)
    sizes = unit_sizes(trial)
    units = np.unique(labels)
    low, high = float(stacked.min()) - 0.15 * step, max(float(shown[:, 0].max()), 0.4 * step)
    tick = MARK_INCHES * (high - low) / (height - MARK_INCHES * (len(units) + 2))
    for place, unit in enumerate(units):
        style = unit_style(int(unit))
        own = spikes_ms[labels == unit]
        covered = np.zeros(len(shown), dtype=bool)
        for spike in own:
            covered |= (times_ms >= spike + _MARK_MS[0]) & (times_ms <= spike + _MARK_MS[1])
        # Where a unit is small, colour would hide whose spike it is.
        large = sizes[unit, channels] >= 0.5 * max(float(sizes[unit].max()), 1e-6)
        marked = np.where(covered[:, None], stacked, np.nan)[:, large]
        # One line for all channels and spikes, with gaps in between.
        gap = np.full((1, marked.shape[1]), np.nan)
        axis.plot(
            np.tile(np.append(times_ms, np.nan), marked.shape[1]),
            np.concatenate([marked, gap]).T.ravel(),
            color=style.colour,
            linewidth=1.2,
            zorder=3,
            label=f"spikes of unit {unit}",
        )
        line = high + tick * (len(units) - place)
        axis.plot(
            own,
            np.full(len(own), line),
            style.marker,
            color=style.colour,
            markersize=4,
            linestyle="none",
            zorder=4,
            label=f"unit {unit}",
        )
        axis.axhline(line, color="0.92", linewidth=0.6, zorder=1)
        axis.text(
            1.003,
            line,
            f"unit {unit}",
            transform=axis.get_yaxis_transform(),
            fontsize=7,
            va="center",
            color=style.colour,
        )
    overlaps = _overlaps(spikes_ms, labels)
    for middle in overlaps:
        axis.axvspan(middle - 0.6, middle + 0.6, color="0.9", linewidth=0, zorder=0)
    axis.set_yticks(-np.arange(len(channels)) * step, [f"ch {channel}" for channel in channels])
    axis.set_xlim(0, max(num_samples * 1000.0 / rate, 1e-3))
    axis.set_ylim(low, high + tick * (len(units) + 1))
    bar = round_length(0.8 * step)
    axis.plot(
        [1.02, 1.02],
        [low, low + bar],
        transform=axis.get_yaxis_transform(),
        color="black",
        linewidth=2,
        clip_on=False,
        label="scale",
    )
    axis.text(1.025, low + bar / 2, f"{bar:g} µV", transform=axis.get_yaxis_transform(), fontsize=8, va="center")
    counted = f"{len(spikes_ms)} labelled spike{'' if len(spikes_ms) == 1 else 's'}"
    if len(overlaps):
        counted += f", {len(overlaps)} overlap{'' if len(overlaps) == 1 else 's'} within {_OVERLAP_MS:g} ms (grey)"
    selected = (
        "" if len(channels) == trial.traces.shape[1] else f"; {len(channels)} of {trial.traces.shape[1]} channels"
    )
    band = _band(rate)
    filtered = "not filtered" if band is None else f"{band[0]:g} to {band[1]:g} Hz"
    axis.set_title(f"traces from {start / rate:.3f} s on, {filtered}: {counted}{selected}", fontsize=10, loc="left")
    axis.set_xlabel("ms", fontsize=9)
    _open_frame(axis)


def draw_spectrum(axis: Axes, trial: Trial, *, channels: np.ndarray) -> None:
    """Draw the power of each channel as it is, and of what lies between labelled spikes.

    Parameters
    ----------
    axis : Axes
        Empty.
    trial : Trial
        Of any number of units.
    channels : np.ndarray, [num_drawn]
        Indices of those that are drawn.
    """
    axis.set_title("power of the unfiltered traces, one line a channel", fontsize=10, loc="left")
    rate = trial.sampling_frequency
    traces = trial.traces[: int(_SPECTRUM_S * rate)][:, channels].astype("float64")
    if len(traces) < 64:
        say(axis, "Too short for a spectrum.")
        return
    # Long enough for low frequencies, and of a short trial so short that there is something to average.
    num = min(int(0.15 * rate), max(len(traces) // 4, 64))
    frequencies, power = welch(traces, fs=rate, nperseg=num, axis=0)
    for row, channel in enumerate(channels):
        # Nothing is left of a dead channel on a logarithmic axis.
        if power[1:, row].max() > 0:
            shade = str(0.15 + 0.6 * row / max(len(channels) - 1, 1))
            axis.plot(frequencies[1:], power[1:, row], color=shade, linewidth=0.9, label=f"channel {channel}")
    noise = _noise_power(trial, traces)
    if noise is not None and noise[1].max() > 0:
        axis.plot(*noise, color="#D55E00", linewidth=1.6, linestyle="--", label="between labelled spikes")
        axis.legend(*([found[-1]] for found in axis.get_legend_handles_labels()), fontsize=8, frameon=False)
    axis.set_xscale("log")
    if (power[1:] > 0).any():
        axis.set_yscale("log")
    band = _band(rate)
    if band is not None:
        axis.axvspan(*band, color="0.93", linewidth=0, zorder=0)
    axis.set_xlim(frequencies[1], rate / 2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("Hz" if band is None else "Hz (grey: shown above)", fontsize=9)
    axis.set_ylabel("µV² / Hz", fontsize=9)
    _open_frame(axis)


def draw_intervals(axis: Axes, trial: Trial) -> None:
    """Draw intervals between spikes: a curve a unit; of many units, which curves would hide, a row of a map.

    Parameters
    ----------
    axis : Axes
        Empty.
    trial : Trial
        Of any number of units.
    """
    axis.set_title("intervals between spikes of a unit", fontsize=10, loc="left")
    edges = np.geomspace(1.0, 10000.0, 41)
    num_units = len(trial.unit_names)
    shares = np.full((num_units, len(edges) - 1), np.nan)
    for unit in range(num_units):
        gaps = np.diff(trial.spike_samples[trial.spike_labels == unit]) * 1000.0 / trial.sampling_frequency
        if len(gaps):
            shares[unit] = 100.0 * np.histogram(gaps, edges)[0] / len(gaps)
    if np.isnan(shares).all():
        say(axis, "No unit has two spikes.")
        return
    if num_units <= _MAX_CURVES:
        for unit in np.flatnonzero(~np.isnan(shares[:, 0])):
            style = unit_style(int(unit))
            axis.stairs(shares[unit], edges, color=style.colour, linewidth=1.3, label=f"unit {unit}")
        axis.set_ylim(bottom=0)
        axis.set_ylabel("intervals of the unit (%)", fontsize=9)
    else:
        mesh = axis.pcolormesh(edges, np.arange(num_units + 1) - 0.5, shares, cmap="Greys", vmin=0.0)
        axis.figure.colorbar(mesh, ax=axis, label="intervals of the unit (%)")
        axis.set_ylim(num_units - 0.5, -0.5)
        axis.set_yticks(range(0, num_units, 1 if num_units <= 12 else 2))
        axis.set_ylabel("unit", fontsize=9)
    axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("ms", fontsize=9)
    _open_frame(axis)


def draw_raster(axis: Axes, trial: Trial) -> None:
    """Draw the spike times of each unit, and tell its rate.

    Parameters
    ----------
    axis : Axes
        Empty.
    trial : Trial
        Of any number of units.
    """
    num_units = len(trial.unit_names)
    duration = len(trial.traces) / trial.sampling_frequency
    thinned = False
    for unit in range(num_units):
        style, own = unit_style(unit), trial.spike_samples[trial.spike_labels == unit] / trial.sampling_frequency
        stride = -(-len(own) // _MAX_TICKS) or 1
        thinned |= stride > 1
        drawn = own[::stride]
        axis.plot(
            drawn,
            np.full(len(drawn), unit),
            "|",
            color=style.colour,
            markersize=min(12.0, 130.0 / num_units),
            markeredgewidth=0.7,
            label=f"unit {unit}",
        )
        rate = f"{len(own) / duration:.3g} Hz"
        axis.text(1.01, unit, rate, transform=axis.get_yaxis_transform(), fontsize=7, va="center", color=style.colour)
    axis.set_title("spike times and rates" + (", some spikes left out" if thinned else ""), fontsize=10, loc="left")
    if not num_units:
        say(axis, "No units.")
        return
    axis.set_xlim(0, duration)
    axis.set_ylim(num_units - 0.4, -0.6)
    axis.set_yticks(range(0, num_units, 1 if num_units <= 12 else 2))
    axis.set_xlabel("s", fontsize=9)
    axis.set_ylabel("unit", fontsize=9)
    _open_frame(axis)


def _stretch(trial: Trial, *, num_samples: int) -> int:
    """Where the stretch of traces begins that has the most spikes, and units."""
    last = max(len(trial.traces) - num_samples, 0)
    times, labels = trial.spike_samples, trial.spike_labels
    if not len(times):
        return 0
    starts = np.clip(times - 0.02 * num_samples, 0, last).astype("int64")
    ends = np.searchsorted(times, starts + num_samples)
    begins = np.searchsorted(times, starts)
    score = (ends - begins).astype(float)
    # Each unit that shows up is worth a few spikes of those that do already.
    for unit in np.unique(labels):
        own = times[labels == unit]
        score += 4.0 * (np.searchsorted(own, starts + num_samples) > np.searchsorted(own, starts))
    return int(starts[score.argmax()])


def _overlaps(times_ms: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Middles of neighbouring spikes of different units that overlap [num_overlaps]."""
    together = (np.diff(times_ms) < _OVERLAP_MS) & (np.diff(labels) != 0)
    return ((times_ms[1:] + times_ms[:-1]) / 2)[together]


def _band(sampling_frequency: float) -> tuple[float, float] | None:
    """The band of spikes, or as much of it as the rate has: none below."""
    high = min(_BAND_HZ[1], 0.45 * sampling_frequency)
    return (_BAND_HZ[0], high) if high > _BAND_HZ[0] else None


def _filtered(traces: np.ndarray, *, sampling_frequency: float) -> np.ndarray:
    """Traces [num_samples, num_channels] within the band of spikes, about 0 in any case."""
    band = _band(sampling_frequency)
    if len(traces) < 4 or band is None:
        return traces - np.median(traces, axis=0)
    sos = butter(3, band, btype="bandpass", fs=sampling_frequency, output="sos")
    # The default pad is longer than a very short trial.
    return sosfiltfilt(sos, traces, axis=0, padlen=min(3 * (2 * len(sos) + 1), len(traces) - 1))


def _noise_power(trial: Trial, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Frequencies, and mean power over channels of stretches without a labelled spike; None where there are few."""
    rate = trial.sampling_frequency
    num = int(0.02 * rate)
    if num < 16:
        return None
    starts = np.arange(0, len(traces) - num + 1, num)
    # Spikes last: those just before a stretch are in it.
    touched = np.searchsorted(trial.spike_samples, starts + num + 0.001 * rate) > np.searchsorted(
        trial.spike_samples, starts - 0.004 * rate
    )
    starts = starts[~touched][:500]
    if len(starts) < 10 or not len(trial.spike_samples):
        return None
    stretches = np.stack([traces[start : start + num] for start in starts])
    frequencies, power = welch(stretches, fs=rate, nperseg=num, axis=1)
    return frequencies[1:], power.mean(axis=(0, 2))[1:]


def _open_frame(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
