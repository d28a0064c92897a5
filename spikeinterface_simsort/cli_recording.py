"""Options of the command line that name a recording, and how it is read."""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.cli_common import CommandError
from spikeinterface_simsort.weights_format import one_line

if TYPE_CHECKING:
    from probeinterface import ProbeGroup
    from spikeinterface.core import BaseRecording

_TETRODE = 4
_TETRODE_DISTANCE_UM = 200.0
_PICKLE_SUFFIXES = {".pkl", ".pickle"}
_PROBE_SUFFIXES = {".json", ".prb"}


class ListFormats(argparse.Action):
    """Print the formats that can be read, and leave: nothing else has to be given."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:  # noqa: D102
        for name, reader in recording_readers().items():
            kind = "folder" if _first_argument(reader) == "folder_path" else "file"
            sys.stdout.write(f"{name} ({kind})\n")
        parser.exit(0)


def add_recording_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a recording; `check_recording_options` and `read_recording` read them.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command that sorts.
    """
    parser.add_argument(
        "path",
        metavar="PATH",
        type=Path,
        help="recording: a folder or zarr saved by SpikeInterface, "
        "or what --format or the options for raw binary files say",
    )
    system = parser.add_argument_group("formats of acquisition systems")
    system.add_argument("--format", metavar="NAME", help="for example neuralynx, openephys, spikeglx, axona, mda, nwb")
    system.add_argument("--list-formats", action=ListFormats, help="print all formats and leave")
    system.add_argument("--stream-id", metavar="ID", help="which stream, where there are several")
    system.add_argument("--stream-name", metavar="NAME", help="the same by name (nwb: path of the electrical series)")
    binary = parser.add_argument_group("raw binary files", "The first three are needed.")
    binary.add_argument("--sampling-frequency", metavar="HZ", type=float)
    binary.add_argument("--num-channels", metavar="N", type=int)
    binary.add_argument("--dtype", help="int16, uint16, float32, >i2, ...")
    binary.add_argument("--gain-uv", metavar="UV", type=float, help="uV in one step of the samples")
    binary.add_argument("--offset-uv", metavar="UV", type=float, help="uV of a sample of zero (0)")
    binary.add_argument("--time-axis", type=int, choices=(0, 1), help="1 where each channel is written as a whole (0)")
    probe = parser.add_argument_group("electrodes")
    probe.add_argument(
        "--probe", metavar="FILE", type=Path, help="probeinterface's .json, or .prb (a Python script, which is run)"
    )
    probe.add_argument(
        "--group-size", metavar="N", type=int, help="sort each N successive channels by themselves: 4 for tetrodes"
    )


def check_recording_options(args: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before anything is read.

    Parameters
    ----------
    args : argparse.Namespace
        With the options of `add_recording_options`.

    Raises
    ------
    CommandError
        A file is missing, the options contradict one another, or a raw binary file is not fully described.
    """
    if not args.path.exists():
        raise CommandError(f"There is no {args.path}.")
    if args.probe is not None and not args.probe.is_file():
        raise CommandError(f"There is no probe file {args.probe}.")
    if args.probe is not None and args.probe.suffix.lower() not in _PROBE_SUFFIXES:
        raise CommandError(f"{args.probe} is neither probeinterface's .json nor a .prb file.")
    if args.group_size is not None and args.group_size < 1:
        raise CommandError(f"--group-size must be 1 or more, not {args.group_size}.")
    if args.format is None and (args.stream_id is not None or args.stream_name is not None):
        raise CommandError("--stream-id and --stream-name need --format.")
    if _is_binary(args):
        _check_binary(args)
    elif args.format is not None:
        _find_reader(args.format, path=args.path)
    elif args.path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CommandError(
            f"{args.path} is a pickle, which can run anything and is not read: save the recording as a folder, zarr or "
            "JSON (recording.save, recording.dump)."
        )
    elif args.path.is_file() and args.path.suffix.lower() != ".json":
        raise CommandError(
            f"{args.path} is a file: name its format with --format (see --list-formats), or describe a raw binary "
            "file with --sampling-frequency, --num-channels and --dtype."
        )


def read_recording(args: argparse.Namespace) -> BaseRecording:
    """Read the recording that the options name, with its electrodes and groups.

    Parameters
    ----------
    args : argparse.Namespace
        With the options of `add_recording_options`, checked.

    Returns
    -------
    BaseRecording

    Raises
    ------
    CommandError
        It cannot be read, is no recording, or does not fit the probe or the size of the groups.
    """
    from spikeinterface.core import BaseRecording

    if _is_binary(args):
        recording = _read_binary(args)
    elif args.format is not None:
        recording = _read_format(args)
    else:
        recording = read_saved(args.path)
    if not isinstance(recording, BaseRecording):
        raise CommandError(f"{args.path} is not a recording ({type(recording).__name__}).")
    _set_electrodes(recording, probe_file=args.probe, group_size=args.group_size)
    return recording


def read_saved(path: Path) -> Any:
    """Read what SpikeInterface saved.

    Parameters
    ----------
    path : Path
        Folder, zarr or JSON.

    Returns
    -------
    object
        A recording, if it is one.

    Raises
    ------
    CommandError
        It cannot be read, or could run anything.
    """
    from spikeinterface.core import load

    try:
        return load(path)
    except Exception as error:  # What a broken folder raises depends on what is broken.
        raise CommandError(
            f"{path} is not a recording that SpikeInterface saved ({one_line(error)}). Name the format of another "
            "recording with --format (see --list-formats)."
        ) from error


def recording_readers() -> dict[str, Callable[..., Any]]:
    """Readers of SpikeInterface that need no more than a path, by the name of their format.

    Returns
    -------
    dict
        Sorted by name.
    """
    from spikeinterface.extractors import recording_extractor_full_dict

    readers = {}
    for name, reader in recording_extractor_full_dict.items():
        first, *others = inspect.signature(reader).parameters.values()
        required = [other for other in others if other.default is other.empty and other.kind != other.VAR_KEYWORD]
        if first.name in ("file_path", "folder_path") and not required:
            readers[name] = reader
            # One function reads several versions of a format.
            if inspect.isfunction(reader):
                readers[reader.__name__.removeprefix("read_")] = reader
    return dict(sorted(readers.items()))


def _is_binary(args: argparse.Namespace) -> bool:
    options = (args.sampling_frequency, args.num_channels, args.dtype, args.gain_uv, args.offset_uv, args.time_axis)
    return any(option is not None for option in options)


def _check_binary(args: argparse.Namespace) -> None:
    if args.format is not None:
        raise CommandError("--format is for other files than raw binary ones: leave out one or the other.")
    needed = {
        "--sampling-frequency": args.sampling_frequency,
        "--num-channels": args.num_channels,
        "--dtype": args.dtype,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise CommandError(f"A raw binary file needs {', '.join(needed)} together; missing: {', '.join(missing)}.")
    if not args.path.is_file():
        raise CommandError(f"{args.path} is a folder, not a raw binary file.")
    if not args.sampling_frequency > 0 or args.num_channels < 1:
        raise CommandError("--sampling-frequency and --num-channels must be positive.")
    if args.offset_uv is not None and args.gain_uv is None:
        raise CommandError("--offset-uv needs --gain-uv.")
    try:
        dtype = np.dtype(args.dtype)
    except TypeError as error:
        raise CommandError(f"{args.dtype!r} is not a type of numbers: write int16, uint16 or float32.") from error
    if dtype.kind not in "iuf":
        raise CommandError(f"{args.dtype!r} is not a type of real numbers: write int16, uint16 or float32.")
    num_bytes, frame = args.path.stat().st_size, dtype.itemsize * args.num_channels
    if num_bytes == 0 or num_bytes % frame:
        raise CommandError(
            f"{args.path} has {num_bytes} bytes, which are no whole number of frames of {args.num_channels} channels "
            f"of {dtype.name}: check --num-channels and --dtype."
        )
    if args.group_size is not None and args.num_channels % args.group_size:
        raise CommandError(f"{args.num_channels} channels cannot be divided into groups of {args.group_size}.")


def _read_binary(args: argparse.Namespace) -> Any:
    from spikeinterface.core import BinaryRecordingExtractor

    return BinaryRecordingExtractor(
        [args.path],
        sampling_frequency=args.sampling_frequency,
        num_channels=args.num_channels,
        dtype=args.dtype,
        time_axis=args.time_axis or 0,
        gain_to_uV=args.gain_uv,
        offset_to_uV=None if args.gain_uv is None else args.offset_uv or 0.0,
    )


def _read_format(args: argparse.Namespace) -> Any:
    reader = _find_reader(args.format, path=args.path)
    parameters = inspect.signature(reader).parameters
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    kwargs = {}
    for value, names in (
        (args.stream_id, ("stream_id",)),
        (args.stream_name, ("stream_name", "electrical_series_path")),
    ):
        if value is None:
            continue
        taken = [name for name in names if name in parameters] or [name for name in names[:1] if takes_any]
        if not taken:
            raise CommandError(f"The format {args.format} has no {names[0].replace('_', ' ')}: leave it out.")
        default = parameters[taken[0]].default if taken[0] in parameters else None
        kwargs[taken[0]] = int(value) if isinstance(default, int) else value
    try:
        recording = reader(args.path, **kwargs)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        need = f"the package {package!r}: pip install {package}" if package else f"another package: {error}"
        raise CommandError(f"Reading {args.format} needs {need}") from error
    except Exception as error:  # Each reader has errors of its own.
        # Of the other options, only a stream can be missing.
        hint = " Choose one with --stream-id or --stream-name." if "stream" in str(error) else ""
        raise CommandError(f"{args.path} cannot be read as {args.format}: {one_line(error)}{hint}") from error
    # Simulated formats bring the true sorting along.
    return recording[0] if isinstance(recording, tuple) else recording


def _find_reader(name: str, *, path: Path) -> Callable[..., Any]:
    """Reader of a format, checked against what lies at a path."""
    readers = recording_readers()
    reader = readers.get(name.lower())
    if reader is None:
        close = difflib.get_close_matches(name.lower(), readers, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "--list-formats lists those there are."
        raise CommandError(f"There is no format {name!r}: {hint}")
    if _first_argument(reader) == "folder_path" and not path.is_dir():
        raise CommandError(f"The format {name} is read from a folder, and {path} is a file: give its folder.")
    return reader


def _first_argument(reader: Callable[..., Any]) -> str:
    return next(iter(inspect.signature(reader).parameters))


def _set_electrodes(recording: BaseRecording, *, probe_file: Path | None, group_size: int | None) -> None:
    """Give a recording its probe, a tetrode's where nothing else is known, and its groups."""
    num_channels = recording.get_num_channels()
    if group_size is not None and num_channels % group_size:
        raise CommandError(f"{num_channels} channels cannot be divided into groups of {group_size}.")
    if probe_file is not None:
        recording.set_probegroup(_read_probe(probe_file, num_channels=num_channels))
    elif not recording.has_probe() and (num_channels == _TETRODE or group_size == _TETRODE):
        recording.set_probegroup(_tetrodes(num_channels // _TETRODE))
    if group_size is not None:
        recording.set_property("group", np.arange(num_channels) // group_size)


def _read_probe(path: Path, *, num_channels: int) -> ProbeGroup:
    from probeinterface import read_prb, read_probeinterface

    try:
        probes = read_prb(path) if path.suffix.lower() == ".prb" else read_probeinterface(path)
    except Exception as error:  # A .prb file is a Python script: it may raise anything.
        raise CommandError(f"{path} cannot be read as a probe: {one_line(error)}") from error
    wired = probes.get_global_device_channel_indices()["device_channel_indices"]
    if not np.any(wired >= 0) and len(wired) == num_channels:
        probes.set_global_device_channel_indices(np.arange(num_channels))
        wired = np.arange(num_channels)
    if not np.array_equal(np.sort(wired[wired >= 0]), np.arange(num_channels)):
        raise CommandError(
            f"The probe of {path} does not fit: of its {len(wired)} contacts {np.sum(wired >= 0)} are wired, and the "
            f"recording has the channels 0 to {num_channels - 1}."
        )
    return probes


def _tetrodes(num_tetrodes: int) -> ProbeGroup:
    from probeinterface import ProbeGroup, generate_tetrode

    probes = ProbeGroup()
    for index in range(num_tetrodes):
        probe = generate_tetrode()
        probe.move([index * _TETRODE_DISTANCE_UM, 0.0])
        probe.set_device_channel_indices(np.arange(_TETRODE) + index * _TETRODE)
        probes.add_probe(probe)
    return probes
