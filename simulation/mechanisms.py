"""Compilation of the membrane mechanisms (NMODL) for NEURON, once for each version of their text."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path

from platformdirs import user_cache_path

logger = logging.getLogger(__name__)

COMPILERS = ("g++", "clang++", "c++")


def cache_folder() -> Path:
    """Folder under the user's cache directory that compiled mechanisms and fetched cells lie in."""
    return user_cache_path("spikeinterface_simsort", appauthor=False)


def mechanism_key(sources: dict[str, str]) -> str:
    """Key of a compilation: the mechanisms' names and text, NEURON's version and the kind of machine.

    Parameters
    ----------
    sources : dict
        Text of each mechanism by its name.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in (version("neuron"), sys.platform, platform.machine(), *(f"{k}\0{sources[k]}" for k in sorted(sources))):
        digest.update(part.encode("utf-8") + b"\0")
    return digest.hexdigest()[:16]


def compile_mechanisms(*, source_folder: Path | None = None, cache: Path | None = None) -> Path:
    """Compile mechanisms into a library that NEURON can load, unless that has been done.

    Parameters
    ----------
    source_folder : Path, optional
        Folder of ``.mod`` files; default the project's own.
    cache : Path, optional
        Where compiled libraries are kept, each under its key; default `cache_folder`.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    FileNotFoundError
        The folder holds no mechanism, or there is no C++ compiler.
    RuntimeError
        The compilation failed; the message ends with what it said.
    """
    if source_folder is None:
        with as_file(files("spikeinterface_simsort.simulation") / "mechanisms") as folder:
            return compile_mechanisms(source_folder=folder, cache=cache)
    paths = sorted(source_folder.glob("*.mod"))
    if not paths:
        raise FileNotFoundError(f"There are no mechanisms (.mod files) in {source_folder}.")
    key = mechanism_key({path.name: path.read_text(encoding="utf-8") for path in paths})
    folder = (cache_folder() if cache is None else cache) / "mechanisms" / key
    if not folder.exists():
        logger.info("Compiling %d mechanisms into %s: done once.", len(paths), folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{key}.partial-") as partial:
            _run_nrnivmodl(paths, folder=Path(partial))
            Path(partial).chmod(0o755)
            try:
                Path(partial).rename(folder)
            except OSError:
                # Another process was first; what it made is the same.
                if not folder.exists():
                    raise
            else:
                # The context manager expects to find what it made.
                Path(partial).mkdir()
    return _library(folder)


def _library(folder: Path) -> Path:
    found = sorted(path for path in folder.glob("*/*nrnmech.*") if path.suffix in {".so", ".dylib", ".dll"})
    if not found:
        raise RuntimeError(f"{folder} holds no compiled library: remove that folder, and it is made anew.")
    return found[0]


def _run_nrnivmodl(paths: list[Path], *, folder: Path) -> None:
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX", COMPILERS[0]), *COMPILERS)):
        raise FileNotFoundError(
            "Cell models need a C++ compiler, and none was found: install one (Debian and Ubuntu: apt install g++; "
            "macOS: xcode-select --install), or use a neuron bank that is there already, which needs none."
        )
    beside_python = str(Path(sys.executable).parent)
    nrnivmodl = shutil.which("nrnivmodl", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if nrnivmodl is None:
        raise FileNotFoundError("NEURON's nrnivmodl was not found: pip install 'spikeinterface-simsort[simulation]'")
    for path in paths:
        shutil.copy(path, folder / path.name)
    environment = dict(os.environ, PATH=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    # No shell, and nothing from outside: the mechanisms lie in the folder.
    done = subprocess.run(  # nosec B603
        [nrnivmodl, "."], cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise RuntimeError(f"nrnivmodl could not compile the mechanisms:\n{said}")
