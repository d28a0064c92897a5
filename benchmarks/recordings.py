"""Arrays as recordings of a tetrode and as sortings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NumpyRecording, NumpySorting
from spikeinterface.preprocessing import bandpass_filter

from spikeinterface_simsort.simulation.electrodes import TETRODE_RADIUS_UM, Contacts
from spikeinterface_simsort.simulation.probes import probe_of_contacts

# One step of the converter of a common amplifier, in uV.
STEP_UV = 0.195


def tetrode_recording(traces: np.ndarray, *, rate: float, contacts_um: np.ndarray) -> BaseRecording:
    """Traces as an amplifier stores them: whole numbers, with a gain, on a probe.

    Parameters
    ----------
    traces : np.ndarray, float [num_frames, num_channels]
        In uV.
    rate : float
        Sampling frequency in Hz.
    contacts_um : np.ndarray, float [num_channels, 2]
        Places of the contacts.

    Returns
    -------
    BaseRecording
        int16, in steps of 0.195 uV.

    Raises
    ------
    ValueError
        The traces exceed what 16 bits hold, 6.4 mV.
    """
    steps = np.round(traces / STEP_UV)
    limits = np.iinfo("int16")
    if steps.min() < limits.min or steps.max() > limits.max:
        raise ValueError(f"The traces reach {np.abs(traces).max():.0f} uV: 16 bits hold {limits.max * STEP_UV:.0f} uV.")
    recording = NumpyRecording([steps.astype("int16")], sampling_frequency=rate)
    recording.set_channel_gains(STEP_UV)
    recording.set_channel_offsets(0.0)
    positions = np.column_stack([contacts_um, np.zeros(len(contacts_um))])
    normals = np.tile([0.0, 0.0, 1.0], (len(positions), 1))
    recording.set_probe(probe_of_contacts(Contacts(positions, TETRODE_RADIUS_UM, normals)))
    return recording


def spike_band(recording: BaseRecording) -> BaseRecording:
    """A recording in the band of spikes, 300 to 6000 Hz or what its rate holds of it, in floating point."""
    freq_max = min(6000.0, 0.45 * recording.get_sampling_frequency())
    return bandpass_filter(recording, freq_min=300.0, freq_max=freq_max, dtype="float32")


def sorting_of(trains: Mapping[int, np.ndarray], *, rate: float) -> BaseSorting:
    """Spike trains as a sorting.

    Parameters
    ----------
    trains : mapping of int to np.ndarray, int64 [num_spikes]
        Frames of each unit.
    rate : float
        Sampling frequency in Hz.

    Returns
    -------
    BaseSorting
    """
    if not trains:
        # Ids without a type cannot be compared.
        nothing = np.empty(0, dtype="int64")
        return NumpySorting.from_samples_and_labels([nothing], [nothing], rate, unit_ids=nothing)
    return NumpySorting.from_unit_dict([dict(trains)], rate)
