"""Neurons of a bank as MEArec's templates, and MEArec's recordings as trials.

MEArec works in um, ms and uV, as we do. Its probes of silicon lie in the y-z plane and see the neurons at positive x;
its wires lie in the x-y plane. Its templates have the most negative value, over channels, a fixed time after their
start (``cut_out[0]``), and its spike times mark that value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import MEArec
import MEAutility
import numpy as np
import yaml
from scipy.signal import butter, filtfilt, lfilter
from scipy.spatial.transform import Rotation

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.cell_models import me_type
from spikeinterface_simsort.simulation.composition import Trial
from spikeinterface_simsort.simulation.extracellular import lead_field, random_rotation
from spikeinterface_simsort.simulation.spike_synthesis import phase_basis

logger = logging.getLogger(__name__)

# Parts of the morphological types of pyramidal, star pyramidal and spiny stellate cells: TTPC1, UTPC, BPC, IPC, SP, SS.
EXCITATORY_TYPES = ("PC", "SP", "SS")
# How often a neuron is placed in vain before it is given up.
MAX_DRAWS = 500
# Normal of each plane that a probe may lie in.
_NORMAL_AXIS = {"xy": 2, "yz": 0, "xz": 1}
# Which axes of MEArec become x, y and z of a trial, whose contacts lie in the x-y plane. All three are rotations.
_TRIAL_AXES = {"xy": [0, 1, 2], "yz": [1, 2, 0], "xz": [2, 0, 1]}
_SUFFIXES = (".h5", ".hdf5")
# The layout of the file changed with it, and MEArec reads no older ones.
_OLDEST_VERSION = (1, 5)


@cache
def _template_defaults() -> dict[str, Any]:
    # Not by MEArec's own function, which copies its cell models into the home directory.
    return yaml.safe_load((files("MEArec") / "default_params" / "templates_params.yaml").read_text(encoding="utf8"))


def is_excitatory(cell_type: str) -> bool:
    """Tell excitatory from inhibitory cells by the name of their type.

    Parameters
    ----------
    cell_type : str
        ME-type of the NMC portal (``L6_TPC_L1_cADpyr231``), or type of the bundled bank, where regular spiking cells
        (``pyramidal_rs``) count as excitatory.

    Returns
    -------
    bool
    """
    return cell_type.endswith("_rs") or any(part in _kind(cell_type) for part in EXCITATORY_TYPES)


def _kind(cell_type: str) -> str:
    """What tells the kind of a cell: of an ME-type the part after the layer, as the rest tells how it fires."""
    parts = cell_type.split("_")
    return parts[1] if cell_type.startswith("L") and len(parts) > 2 else cell_type


def cell_type_params(cell_types: Iterable[str]) -> dict[str, list[str]]:
    """What MEArec needs to tell excitatory from inhibitory templates.

    Parameters
    ----------
    cell_types : iterable of str
        As in ``templates.celltypes`` of what `to_mearec_templates` returns.

    Returns
    -------
    dict
        For ``params["cell_types"]`` of ``MEArec.gen_recordings``: what it shall look for in the names, under
        ``excitatory`` and ``inhibitory``. MEArec's defaults do for cells of the NMC portal, but not for the bundled
        bank; where both are mixed, MEArec may class those of the bundled bank as neither.
    """
    names = sorted({str(name) for name in cell_types})
    return {
        # Not whole names: where the first name has four parts (L6_TPC_L1_cADpyr231, or a clone's), MEArec looks for
        # these in the second part only.
        "excitatory": sorted({_kind(name) for name in names if is_excitatory(name)}),
        "inhibitory": [name for name in names if not is_excitatory(name)],
    }


def _probe_info(probe: str | np.ndarray) -> dict[str, Any]:
    """Describe a probe as MEAutility does."""
    if isinstance(probe, str):
        known = MEAutility.return_mea_list()
        if probe not in known:
            raise ValueError(f"MEArec has no probe {probe!r}: choose one of {', '.join(known)}, or give positions.")
        return MEAutility.return_mea_info(probe)
    positions = np.asarray(probe, dtype=float)
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions) or not np.isfinite(positions).all():
        raise ValueError(f"probe must be a name or finite positions [num_channels, 3], not {positions.shape}.")
    # Of planes that hold all contacts (one contact lies in all of them) x-y comes first, as for tetrodes of trials.
    extent = np.ptp(positions, axis=0)
    plane = min(_NORMAL_AXIS, key=lambda name: extent[_NORMAL_AXIS[name]])
    return {
        "electrode_name": "custom",
        "description": "Positions given to spikeinterface_simsort.",
        "pos": positions.tolist(),
        "center": False,
        "sortlist": None,
        "size": 6.0,
        "shape": "circle",
        "type": "wire",
        "plane": plane,
    }


def _soma_limits(
    given: Sequence[Sequence[float] | None], *, info: Mapping[str, Any], contacts: np.ndarray, overhang_um: float
) -> np.ndarray:
    """Range of soma positions along each axis, [3, 2]."""
    limits = np.column_stack([contacts.min(axis=0) - overhang_um, contacts.max(axis=0) + overhang_um])
    if info["type"] == "mea":
        # Behind the contacts there is the shank.
        limits[_NORMAL_AXIS[info["plane"]]] = _template_defaults()["xlim"]
    for axis, (name, limit) in enumerate(zip("xyz", given, strict=True)):
        if limit is not None:
            if len(limit) != 2 or not limit[0] <= limit[1]:
                raise ValueError(f"{name}lim must be two numbers in increasing order, not {limit!r}.")
            limits[axis] = limit
    return limits


@dataclass(frozen=True)
class _Placement:
    """Where a neuron is put, and what the contacts see of it, in uV [num_channels, num_template_samples]."""

    location: np.ndarray
    rotation: np.ndarray
    template: np.ndarray


def _cut_out(waveform: np.ndarray, *, num_before: int, num_after: int) -> np.ndarray:
    """Cut a waveform [num_channels, num_samples] so that its trough comes `num_before` samples after the start."""
    trough = int(waveform.min(axis=0).argmin())
    # The waveform ends near zero, so that what lies beyond is as good as its last value.
    padded = np.pad(waveform, ((0, 0), (num_before, num_after)), mode="edge")
    return padded[:, trough : trough + num_before + num_after]


def _place(
    neuron: NeuronCurrents,
    *,
    num: int,
    contacts: np.ndarray,
    limits: np.ndarray,
    gain: float,
    min_amplitude_uv: float,
    min_distance_um: float,
    check_shape: bool,
    rng: np.random.Generator,
) -> list[_Placement]:
    """Draw places for a neuron until it has `num` of them or one cannot be found."""
    defaults = _template_defaults()
    dt, cut_out = float(defaults["dt"]), defaults["cut_out"]
    basis, _ = phase_basis(neuron, sampling_frequency=1000.0 / dt)
    mean_coef = neuron.spike_currents.mean(axis=0)
    placements: list[_Placement] = []
    in_vain = 0
    while len(placements) < num and in_vain < MAX_DRAWS:
        in_vain += 1
        location = rng.uniform(limits[:, 0], limits[:, 1])
        if np.linalg.norm(contacts - location, axis=1).min() < min_distance_um:
            continue
        rotation = random_rotation(rng)
        field = lead_field(neuron, soma_position=location, rotation=rotation, contact_positions=contacts)
        waveform = gain * (field @ mean_coef) @ basis[0]
        if -waveform.min() < min_amplitude_uv or (check_shape and -waveform.min() < waveform.max()):
            continue
        template = _cut_out(waveform, num_before=int(cut_out[0] / dt), num_after=int(cut_out[1] / dt))
        placements.append(_Placement(location, rotation, template.astype("float32")))
        in_vain = 0
    return placements


def to_mearec_templates(
    neurons: Sequence[NeuronCurrents],
    *,
    probe: str | np.ndarray = "tetrode",
    num_per_neuron: int = 10,
    xlim: Sequence[float] | None = None,
    ylim: Sequence[float] | None = None,
    zlim: Sequence[float] | None = None,
    overhang_um: float = 40.0,
    min_amplitude_uv: float = 30.0,
    min_distance_um: float = 15.0,
    check_shape: bool = True,
    insulating: bool | None = None,
    seed: int = 0,
) -> MEArec.TemplateGenerator:
    """Place and rotate neurons of a bank around a probe, as templates for ``MEArec.gen_recordings``.

    Parameters
    ----------
    neurons : sequence of NeuronCurrents
        Of a bank.
    probe : str or np.ndarray, [num_channels, 3]
        Name of a probe of MEAutility, or positions in um of contacts that are wires.
    num_per_neuron : int
        Places for each neuron.
    xlim, ylim, zlim : (low, high), optional
        Range of the somata's positions in um, in the probe's coordinates. By default they exceed those of the contacts
        by `overhang_um` on both sides; along the normal of a silicon probe they are MEArec's (10 to 80 um).
    overhang_um : float
        See there.
    min_amplitude_uv : float
        The largest negative deflection over contacts is at least as large.
    min_distance_um : float
        No soma is closer to a contact.
    check_shape : bool
        Leave out placements whose positive deflection exceeds the negative one, as MEArec does.
    insulating : bool, optional
        Double the potentials, as an insulating plane behind the contacts does (method of images). By default as
        MEArec does: for silicon probes, but not for wires.
    seed : int
        The same seed gives the same templates.

    Returns
    -------
    MEArec.TemplateGenerator
        ``templates`` [num, num_channels, num_samples] in uV, of each neuron's mean spike, at MEArec's time step and
        with its cut-out; ``locations`` [num, 3] in um; ``rotations`` [num, 3], angles in rad about the fixed axes x,
        y and z, in this order; ``celltypes`` [num], ME-types (see `cell_type_params`).

    Raises
    ------
    ValueError
        There is no such probe, the limits are none, or no neuron reaches the amplitude.

    Examples
    --------
    >>> templates = to_mearec_templates(bundled_bank(), probe="tetrode", seed=1)
    >>> params = {"cell_types": cell_type_params(templates.celltypes)}
    >>> recording = MEArec.gen_recordings(tempgen=templates, params=params, verbose=False)
    """
    if num_per_neuron < 1:
        raise ValueError(f"num_per_neuron must be 1 or more, not {num_per_neuron}.")
    info = _probe_info(probe)
    contacts = np.asarray(MEAutility.return_mea(info=info).positions, dtype=float)
    limits = _soma_limits((xlim, ylim, zlim), info=info, contacts=contacts, overhang_um=overhang_um)
    images = info["type"] == "mea" if insulating is None else insulating
    rng = np.random.default_rng(seed)

    placements: list[_Placement] = []
    cell_types: list[str] = []
    for neuron in neurons:
        found = _place(
            neuron,
            num=num_per_neuron,
            contacts=contacts,
            limits=limits,
            gain=2.0 if images else 1.0,
            min_amplitude_uv=min_amplitude_uv,
            min_distance_um=min_distance_um,
            check_shape=check_shape,
            rng=rng,
        )
        if len(found) < num_per_neuron:
            logger.warning("%s has only %d of %d templates.", neuron.name, len(found), num_per_neuron)
        placements += found
        cell_types += [me_type(neuron.name)] * len(found)
    if not placements:
        raise ValueError(
            f"None of {len(neurons)} neurons reaches {min_amplitude_uv} uV within the limits {limits.tolist()} um: "
            "lower min_amplitude_uv, or let the neurons come closer."
        )

    params = {
        **_template_defaults(),
        "rot": "3drot",
        "probe": info["electrode_name"],
        "ncontacts": 1,
        "overhang": float(overhang_um),
        **{f"{name}lim": limit.tolist() for name, limit in zip("xyz", limits, strict=True)},
        "min_amp": float(min_amplitude_uv),
        "check_eap_shape": bool(check_shape),
        "n": int(num_per_neuron),
        "seed": int(seed),
        "drifting": False,
    }
    matrices = np.array([placement.rotation for placement in placements])
    arrays = {
        "templates": np.array([placement.template for placement in placements]),
        "locations": np.array([placement.location for placement in placements]),
        "rotations": Rotation.from_matrix(matrices).as_euler("xyz"),
        "celltypes": np.array(cell_types),
    }
    return MEArec.TemplateGenerator(temp_dict=arrays, info={"params": params, "electrodes": info})


def save_mearec_templates(path: str | Path, templates: MEArec.TemplateGenerator) -> None:
    """Write templates as ``MEArec.load_templates`` and ``MEArec.gen_recordings(templates=...)`` read them.

    Parameters
    ----------
    path : str or Path
        The file to write, which ends in .h5 or .hdf5; an existing one is replaced whole or not at all.
    templates : MEArec.TemplateGenerator
        See `to_mearec_templates`.

    Raises
    ------
    ValueError
        MEArec reads no file of such a name.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"MEArec reads files that end in .h5 or .hdf5, which {path.name} does not.")
    partial = path.with_name(f"{path.name}.partial{path.suffix}")
    MEArec.save_template_generator(templates, partial, verbose=False)
    partial.replace(path)


def _load(path: Path) -> MEArec.RecordingGenerator:
    if not path.is_file():
        raise FileNotFoundError(f"There is no MEArec recording at {path}.")
    # h5py's own error for a file of another format is an OSError that says nothing of MEArec.
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not a MEArec recording: it is no HDF5 file.")
    with h5py.File(path, "r") as file:
        missing = [name for name in ("recordings", "channel_positions", "info") if name not in file]
        if missing:
            hint = " It holds MEArec's templates." if "celltypes" in file else ""
            raise ValueError(f"{path} is not a MEArec recording: it lacks {missing}.{hint}")
        version = str(file.attrs.get("mearec_version", "1.4.0"))
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_VERSION:
            raise ValueError(f"{path} was written by MEArec {version}; only files of 1.5 and later can be read.")
    # Not all of it: MEArec's traces of single units may be larger than the recording.
    wanted = ["recordings", "channel_positions", "spiketrains", "templates"]
    return MEArec.load_recordings(path, return_h5_objects=False, load=wanted, load_waveforms=False, check_suffix=False)


def _filter_as_recorded(templates: np.ndarray, *, settings: Mapping[str, Any], rate: float) -> np.ndarray:
    """Filter templates [num_units, num_channels, num_samples] as MEArec filtered the recording."""
    if not settings.get("filter", False) or not templates.size:
        return templates
    cutoff = np.atleast_1d(np.asarray(settings["filter_cutoff"], dtype=float))
    # MEArec leaves out a low-pass filter beyond the Nyquist frequency.
    if cutoff.size == 1 or cutoff[1] > rate / 2:
        b, a = butter(int(settings["filter_order"]), cutoff[0], btype="highpass", fs=rate)
    else:
        b, a = butter(int(settings["filter_order"]), cutoff, btype="bandpass", fs=rate)
    # The filter's response has faded away after three periods of its lower cutoff.
    num_pad = int(np.ceil(3 * rate / cutoff[0]))
    padded = np.pad(templates, ((0, 0), (0, 0), (num_pad, num_pad)))
    apply = lfilter if str(settings["filter_mode"]) == "lfilter" else filtfilt
    return apply(b, a, padded, axis=-1)[..., num_pad:-num_pad]


def _contact_radius_um(info: Mapping[str, Any]) -> float:
    """Radius of a disc as large as MEAutility's contacts, whose `size` is a radius or half of a side."""
    size = np.atleast_1d(np.asarray(info.get("size", 5.0), dtype=float))
    return float(size[0] if info.get("shape") == "circle" else 2 * np.sqrt(size[0] * size[-1] / np.pi))


def from_mearec(source: str | Path | MEArec.RecordingGenerator) -> Trial:
    """Take a recording of MEArec as a trial.

    Parameters
    ----------
    source : str, Path or MEArec.RecordingGenerator
        File written by ``MEArec.save_recording_generator`` (MEArec 1.5 or later), or what ``MEArec.gen_recordings``
        returns.

    Returns
    -------
    Trial
        Axes are turned such that the contacts lie in the x-y plane. Templates are those that MEArec put into the
        traces, without their padding: the mean over sub-sample jitters, filtered as the recording was, and where
        there is drift, of the middle of the way. MEArec places spikes at whole samples plus a jitter of half a sample
        at most that it does not tell: the spike samples are whole. Spikes whose largest deflection is outside the
        recording are left out.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not a recording of MEArec, or of too old a version, or has no traces.

    Examples
    --------
    >>> trial = from_mearec("recordings_10cells_tetrode.h5")
    """
    generator = _load(Path(source)) if isinstance(source, str | Path) else source
    gain = getattr(generator, "gain_to_uV", None)
    gain = 1.0 if gain is None else float(gain)
    traces = np.array(generator.recordings, dtype="float32") * np.float32(gain)
    if traces.ndim != 2 or not traces.size:
        raise ValueError("The recording of MEArec holds no traces.")
    settings, electrodes = generator.info["recordings"], generator.info["electrodes"]
    made_here = getattr(generator, "tempgen", None) is not None
    if made_here and generator.tmp_mode is None and settings["filter"]:
        # With its default, "memmap", MEArec puts the filtered traces in place of the others.
        logger.warning(
            "MEArec adds filtered to unfiltered traces if tmp_mode is None: generate with tmp_mode='memmap'."
        )
    rate = float(settings["fs"])
    plane = str(electrodes.get("plane", "yz"))
    axes = _TRIAL_AXES[plane]
    num_units, num_channels = len(generator.spiketrains), traces.shape[1]

    if num_units:
        # [num_units, num_steps of drift, 3], without the middle axis where there is no drift.
        locations, rotations = np.asarray(generator.template_locations), np.asarray(generator.template_rotations)
        num_steps = locations.shape[1] if locations.ndim == 3 else 1
        # MEArec squeezes [num_units, num_steps, num_jitters, num_channels, num_samples].
        full = np.asarray(generator.templates)
        num_full = full.shape[-1]
        full = full.reshape(num_units, num_steps, -1, num_channels, num_full)[:, num_steps // 2].mean(axis=1)
        locations = locations.reshape(num_units, num_steps, 3)[:, num_steps // 2][:, axes]
        # A drifting neuron keeps its rotation.
        angles = rotations.reshape(num_units, -1, 3)[:, 0]
        matrices = Rotation.from_euler("xyz", angles).as_matrix()[:, axes]
    else:
        num_full, full = 0, np.zeros((0, num_channels, 0))
        locations, matrices = np.zeros((0, 3)), np.zeros((0, 3, 3))

    before, after = (float(length) for length in generator.info["templates"].get("cut_out", (0.0, 0.0)))
    pad_before, pad_after = (float(length) for length in generator.info["templates"].get("pad_len", (0.0, 0.0)))
    # The same arithmetic as MEArec's, which may round down: this sample of a template falls on the spike's sample.
    fraction = (pad_before + before) / (pad_before + pad_after + before + after) if num_units else 0.0
    mark = int(fraction * num_full)
    start = max(mark - int(before * rate / 1000.0), 0)
    stop = min(mark + int(after * rate / 1000.0), num_full)
    full = _filter_as_recorded(full * gain, settings=settings, rate=rate)
    templates = np.ascontiguousarray(full[..., start:stop].swapaxes(1, 2), dtype="float32")
    peaks = np.array([np.abs(template).max(axis=1).argmax() for template in templates], dtype="int64")

    samples, labels = [np.empty(0)], [np.empty(0, dtype="int64")]
    for unit, (train, peak) in enumerate(zip(generator.spiketrains, peaks, strict=True)):
        # MEArec rounds down too.
        placed = (train.times.rescale("s").magnitude * rate).astype("int64") + peak - (mark - start)
        placed = placed[(placed >= 0) & (placed < len(traces))]
        samples.append(placed.astype(float))
        labels.append(np.full(len(placed), unit, dtype="int64"))
    all_samples, all_labels = np.concatenate(samples), np.concatenate(labels)
    order = np.argsort(all_samples, kind="stable")
    return Trial(
        traces=traces,
        sampling_frequency=rate,
        spike_samples=all_samples[order],
        spike_labels=all_labels[order],
        unit_names=[str(name) for name in generator.template_celltypes],
        unit_positions=locations,
        templates=templates,
        template_peak=peaks,
        contact_positions=np.asarray(generator.channel_positions, dtype=float)[:, axes],
        unit_rotations=matrices,
        contact_radius_um=_contact_radius_um(electrodes),
    )
