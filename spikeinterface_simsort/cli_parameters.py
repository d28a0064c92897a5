"""Options of the command line for the sorter's parameters."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from spikeinterface_simsort.params import ParameterError, SimSortParams

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ListParams(argparse.Action):
    """Print all parameters of the sorter, and leave: nothing else has to be given."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:  # noqa: D102
        sys.stdout.write(list_parameters())
        parser.exit(0)


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the sorter's parameters; `parse_parameters` reads them.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command that sorts.
    """
    group = parser.add_argument_group("the sorter", "Nobody needs to change these.")
    group.add_argument("--preset", help="default, or paper: the pipeline of arXiv 2502.03198 (extra [paper])")
    group.add_argument("--weights", metavar="SOURCE", help="bundled, a folder, or hf://owner/name@revision")
    group.add_argument("--device", help="auto (the default), cpu, cuda, cuda:1, mps")
    group.add_argument("--seed", type=int, help="seed of everything random (0)")
    group.add_argument(
        "--n-jobs",
        type=int,
        metavar="N",
        help="groups, or chunks of the only one, that are sorted at a time (one a core, up to 8; -1: all cores)",
    )
    group.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="any other parameter; may be repeated"
    )
    group.add_argument("--list-params", action=ListParams, help="print all parameters and leave")


def parse_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Read the sorter's parameters from the options, and check them.

    Parameters
    ----------
    args : argparse.Namespace
        With the options of `add_parameter_options`, and `progress_bar`.

    Returns
    -------
    dict
        Parameters that were given, for `run_sorter`.

    Raises
    ------
    ParameterError
        A parameter is not known, given twice, of a wrong type or out of its bounds.
    """
    values = parse_settings(args.set)
    given = {name: getattr(args, name) for name in ("preset", "weights", "device", "seed")}
    given = {name: value for name, value in given.items() if value is not None}
    job_kwargs: dict[str, Any] = {} if args.n_jobs is None else {"n_jobs": args.n_jobs}
    twice = sorted((given.keys() & values.keys()) | (job_kwargs.keys() & values.get("job_kwargs", {}).keys()))
    if twice:
        raise ParameterError(f"{twice[0]} is given twice: by its own option and by --set.")
    values.update(given)
    values["job_kwargs"] = {"progress_bar": args.progress_bar, **job_kwargs, **values.get("job_kwargs", {})}
    # What the preset fills in must fit what was given.
    SimSortParams.from_dict(values).resolve()
    return values


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read parameters from texts NAME=VALUE, each as the type that the parameter has.

    Parameters
    ----------
    settings : sequence of str
        For example ``["freq_min=250", "whiten=true"]``.

    Returns
    -------
    dict
        Values by name; their bounds are not checked.

    Raises
    ------
    ParameterError
        A text is not NAME=VALUE, or the name or the type is wrong.
    """
    parameters = {parameter.name: parameter for parameter in fields(SimSortParams)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ParameterError(f"--set {setting}: write it as NAME=VALUE, for example --set min_spikes=50.")
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else "simsort sort --list-params lists them."
            raise ParameterError(f"There is no parameter {name!r}: {hint}")
        if name in values:
            raise ParameterError(f"{name} is given twice.")
        values[name] = _parse_value(name, text.strip(), annotation=str(parameters[name].type))
    return values


def list_parameters() -> str:
    """Describe all parameters in lines of text: name, default, description.

    Returns
    -------
    str
        Lines, each with its end.
    """
    descriptions, presets = SimSortParams.describe(), SimSortParams().resolve()
    lines = []
    for parameter in fields(SimSortParams):
        default = _default(parameter)
        value = getattr(presets, parameter.name)
        shown = f"{default!r}" if default is not None else f"None: {value!r} with the default preset"
        lines.append(f"{parameter.name} ({shown})")
        lines += textwrap.wrap(descriptions[parameter.name], 96, initial_indent="    ", subsequent_indent="    ")
    return "".join(f"{line}\n" for line in lines)


def _default(parameter: Field[Any]) -> Any:
    return parameter.default if parameter.default_factory is MISSING else parameter.default_factory()


def _parse_value(name: str, text: str, *, annotation: str) -> Any:
    if text.lower() == "none" and "None" in annotation:
        return None
    kind = annotation.split(" | ")[0]
    readers = {"str": str, "int": int, "float": float, "bool": lambda word: _BOOLEANS[word.lower()]}
    try:
        # What is none of these is a dictionary.
        value = readers.get(kind, json.loads)(text)
    except (KeyError, ValueError) as error:
        wanted = 'JSON such as {"n_jobs": 4}' if kind not in readers else f"of type {annotation}"
        raise ParameterError(f"{name} must be {wanted}, not {text!r}.") from error
    if kind not in readers and not isinstance(value, dict):
        raise ParameterError(f"{name} must be a JSON object, not {text!r}.")
    return value
