"""The command ``simsort curate``: which of the sorted units to believe."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeinterface_simsort.cli_common import CommandError, add_logging_options, format_table, require
from spikeinterface_simsort.cli_units import add_jobs_option, read_traces
from spikeinterface_simsort.cores import default_num_jobs

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import SortingAnalyzer

logger = logging.getLogger(__name__)

ANALYZER_FOLDER = "analyzer"

_DESCRIPTION = """\
Label sorted units: single neurons (good), several neurons (MUA), noise.

SOURCE is what `simsort sort` or a sorter of SpikeInterface wrote, or a SortingAnalyzer (folder or zarr). Beside the
classifier that comes with simsort, which gives the column `quality`, units are labelled by thresholds, by Bombcell and,
with --unitrefine, by UnitRefine's models.

DIR will hold
  labels.csv     a row a unit: its quality, how probable it is to be a single neuron, the label by each method
  metrics.csv    what the labels were made from
  curation.json  the labels for SpikeInterface (load_curation, apply_curation) and spikeinterface-gui
  analyzer/      SortingAnalyzer, where SOURCE is none; in either, the labels are properties of the units
"""
_EPILOG = """\
examples:
  simsort curate sorted                      into sorted/, which simsort sort wrote
  simsort curate analyzer.zarr --output labels
  simsort curate sorted --unitrefine         with UnitRefine's published models, from the HuggingFace hub
  simsort curate sorted --unitrefine noise_model/ sua_model/ --thresholds bounds.json --overwrite

bounds.json: {"snr": {"greater": 5}, "isi_violations_ratio": {"less": 0.5}}
"""


def add_curate_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``curate``; it sets ``handler``, a function of the parsed arguments.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Of the command line's parser.
    """
    parser = subparsers.add_parser(
        "curate",
        help="label sorted units: single neurons, several, noise",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="sorted units, or a SortingAnalyzer")
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder for the labels (SOURCE itself, if a folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace labels that are in DIR")
    parser.add_argument(
        "--recording",
        metavar="PATH",
        type=Path,
        help="raw traces that SpikeInterface saved, where SOURCE does not know them or they were moved",
    )
    parser.add_argument("--thresholds", metavar="FILE", type=Path, help="JSON file of bounds of metrics")
    parser.add_argument(
        "--unitrefine",
        metavar="MODEL",
        nargs="*",
        help="also label by UnitRefine's models, noise from neurons and single neurons from several: folders, .skops "
        "files or owner/name on the HuggingFace hub (the published ones, for Neuropixels)",
    )
    add_jobs_option(parser)
    add_logging_options(parser)
    parser.set_defaults(handler=_curate)


# The handler imports what it needs, so that `--help` does not wait for it.
def _curate(args: argparse.Namespace) -> int:
    require("pandas", "skops", extra="curation")
    from spikeinterface_simsort.curation.curation_file import CURATION_FILE, write_curation
    from spikeinterface_simsort.curation.labels import UNITREFINE_MODELS, agreement, label_units
    from spikeinterface_simsort.curation.metrics import compute_metrics

    source = args.source.expanduser().resolve()
    if not source.exists():
        raise CommandError(f"There is no {source}.")
    models = args.unitrefine
    if models is not None and len(models) not in (0, 2):
        raise CommandError(
            "--unitrefine takes two models, noise from neurons and single neurons from several, or none."
        )
    output = source if args.output is None else args.output.expanduser().resolve()
    if output.is_file() or output.suffix == ".zarr":
        raise CommandError(f"{output} is no folder for labels: name one with --output.")
    if (output / CURATION_FILE).exists() and not args.overwrite:
        raise CommandError(
            f"{output / CURATION_FILE} exists: pass --overwrite to replace it, or name another --output."
        )
    thresholds = None if args.thresholds is None else _read_thresholds(args.thresholds.expanduser())
    jobs: dict[str, Any] = {"n_jobs": args.n_jobs or default_num_jobs(), "progress_bar": args.progress_bar}
    analyzer = _open_analyzer(source, output=output, recording=args.recording, jobs=jobs)
    logger.info("Measuring %d units.", len(analyzer.unit_ids))
    labels = label_units(
        analyzer,
        thresholds=thresholds,
        unitrefine=None if models is None else UNITREFINE_MODELS if not models else (models[0], models[1]),
        job_kwargs=jobs,
    )
    write_curation(output, labels=labels, metrics=compute_metrics(analyzer))
    sys.stdout.write(summarise(labels, agreement=agreement(labels), folder=output))
    return 0


def summarise(labels: pd.DataFrame, *, agreement: pd.DataFrame, folder: Path) -> str:
    """Tell how many units are what, by which method, and where that lies.

    Parameters
    ----------
    labels : pandas.DataFrame
        Of `label_units`.
    agreement : pandas.DataFrame
        Of its methods.
    folder : Path
        Holds the labels.

    Returns
    -------
    str
        Lines, each with its end.
    """
    counts = [
        (name, *(int((labels[name] == label).sum()) for label in ("sua", "good", "mua", "noise", "non_soma", "bad")))
        for name in agreement
    ]
    rows = [
        (name, single + good, several, noise, non_soma, bad, agreement.loc[name, "classifier"])
        for name, single, good, several, noise, non_soma, bad in counts
    ]
    header = ["method", "good", "several", "noise", "not somatic", "bad", "as classifier"]
    table = format_table(header, [[cell if cell == cell else None for cell in row] for row in rows])
    unjudged = int((labels["quality"] == "").sum())
    note = f", {unjudged} of too few spikes to tell" if unjudged else ""
    num_good = int((labels["quality"] == "good").sum())
    return f"{table}{num_good} of {len(labels)} units are good{note}\n{folder}\n"


def _open_analyzer(source: Path, *, output: Path, recording: Path | None, jobs: dict[str, Any]) -> SortingAnalyzer:
    """The analyzer that SOURCE is, or one made of it, which is kept with the labels."""
    from spikeinterface.core import load_sorting_analyzer

    from spikeinterface_simsort.curation.metrics import make_analyzer
    from spikeinterface_simsort.folders import replacing
    from spikeinterface_simsort.sorted_units import open_units

    traces = read_traces(recording)
    units = open_units(source, recording=traces)
    if units.analyzer is not None:
        # Once more, as that one is not to be written to.
        found = load_sorting_analyzer(source)
        if traces is not None:
            found.set_temporary_recording(traces)
        return found
    if units.recording is None:
        raise CommandError(f"{source} does not tell of its recording: name it with --recording.")
    folder = output / ANALYZER_FOLDER
    with replacing(folder, staging=folder.with_name(f".{ANALYZER_FOLDER}.partial")) as staging:
        staging.rmdir()
        make_analyzer(units.recording, units.sorting, folder=staging, job_kwargs=jobs)
    return load_sorting_analyzer(folder)


def _read_thresholds(path: Path) -> dict[str, dict[str, float]]:
    try:
        bounds = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} is not a JSON file that can be read: {error}") from error
    if not (isinstance(bounds, dict) and all(isinstance(bound, dict) for bound in bounds.values())):
        raise CommandError(f'{path} must look like {{"snr": {{"greater": 5}}}}.')
    return bounds
