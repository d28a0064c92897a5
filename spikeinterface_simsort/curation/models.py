"""Classifiers of units in SpikeInterface's format (UnitRefine's): bundled, in a folder, or on the HuggingFace hub.

A model is a ``.skops`` file, a pipeline of scikit-learn without pickled code, beside a ``model_info.json``.
"""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeinterface_simsort.curation.metrics import CurationError
from spikeinterface_simsort.hub import is_repo_id

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

BUNDLED_MODEL = Path(__file__).parent / "assets"
# What the bundled classifier says of a unit, best first.
CLASSES = ("sua", "mua", "noise")
MODEL_FILES = ("*.skops", "*.json")
# SpikeInterface loads whatever types a model names; those of these packages run nothing on being loaded.
_KNOWN_PACKAGES = ("sklearn.", "numpy.", "scipy.")


def classify(metrics: pd.DataFrame, *, model: str | Path = BUNDLED_MODEL) -> pd.DataFrame:
    """Tell how probable it is of each unit that it is a single neuron, several, or noise.

    Parameters
    ----------
    metrics : pandas.DataFrame
        Of `compute_metrics`; NaN where a value is not known.
    model : str or Path
        As for `find_model`; default the bundled one.

    Returns
    -------
    pandas.DataFrame, float64 [num_units, num_classes]
        A column a class (of the bundled model `CLASSES`); each row sums to 1.

    Raises
    ------
    CurationError
        The model cannot be had or read, or needs a value that the table does not have.
    """
    import pandas as pd

    pipeline, classes = _load(str(model))
    needed = list(pipeline.feature_names_in_)
    if missing := sorted(set(needed) - set(metrics.columns)):
        raise CurationError(f"The model {model} needs {', '.join(missing)}, which the table of metrics does not have.")
    if not len(metrics):
        return pd.DataFrame(columns=classes, index=metrics.index, dtype=float)
    with np.errstate(over="ignore"):
        values = metrics[needed].astype("float32").replace([np.inf, -np.inf], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probabilities = pipeline.predict_proba(values)
    return pd.DataFrame(probabilities, columns=classes, index=metrics.index)


def find_model(model: str | Path) -> Path:
    """Have a model where it can be read, and see that it holds nothing but numbers.

    Parameters
    ----------
    model : str or Path
        A folder, a ``.skops`` file, or a repository of the HuggingFace hub (``owner/name``, as it is now, or
        ``owner/name@revision``). The hub's own settings hold: HF_HOME, HF_HUB_OFFLINE, HF_TOKEN.

    Returns
    -------
    Path
        Folder or file.

    Raises
    ------
    CurationError
        There is no such model, the hub cannot be reached, or the file names types that might run code.
    """
    path = Path(model).expanduser()
    if not path.exists():
        repo_id, _, revision = str(model).partition("@")
        if not is_repo_id(repo_id):
            raise CurationError(f"There is no model {model}: name a folder, a .skops file, or owner/name on the hub.")
        path = _download(repo_id, revision=revision or None)
    files = [path] if path.is_file() else sorted(path.glob("*.skops"))
    if not files:
        raise CurationError(f"There is no .skops file in {path}: it is not a model of SpikeInterface's.")
    from skops.io import get_untrusted_types

    for file in files:
        try:
            types = get_untrusted_types(file=file)
        except Exception as error:  # What a broken file raises depends on what is broken.
            raise CurationError(f"{file} is not a skops file that can be read: {error}") from error
        strange = [name for name in types if not name.startswith(_KNOWN_PACKAGES)]
        if strange:
            raise CurationError(f"{file} holds {', '.join(strange)}: such a model might run code, and is not loaded.")
    return path


def _download(repo_id: str, *, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(MODEL_FILES)))
    except Exception as error:  # Which classes come depends on the hub's version and on its HTTP library's.
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CurationError(
            f"Could not get the model {repo_id} from the HuggingFace hub: {reason[0]} Check its name and the network, "
            "or download its files elsewhere and name their folder."
        ) from error


# Reading the bundled model takes longer than using it.
@lru_cache(maxsize=4)
def _load(model: str) -> tuple[Any, list[str]]:
    """The pipeline, and the names of its classes in their order."""
    from spikeinterface.curation.model_based_curation import load_model

    path = find_model(model)
    folder, name = (path.parent, path.name) if path.is_file() else (path, None)
    with warnings.catch_warnings():
        # Of a version of scikit-learn other than that it was trained with: `make test` tells if that matters.
        warnings.simplefilter("ignore")
        try:
            pipeline, info = load_model(model_folder=folder, model_name=name, trust_model=True)
            names = {int(code): str(label) for code, label in info["label_conversion"].items()}
            return pipeline, [names[int(code)] for code in pipeline.classes_]
        except Exception as error:  # Whatever is wrong with the file or its description.
            raise CurationError(f"{path} cannot be used as a model: {error}") from error
