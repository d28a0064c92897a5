"""Cell packages of the NMC portal (Markram et al. 2015, Cell 163:456): a hoc template with its morphology.

hoc builds the cell, in a process of its own: NEURON keeps one world a process, and a template that is loaded stays.
The project's own mechanisms are what it builds it of, as they carry the names that the packages use.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import Any

from spikeinterface_simsort.simulation.cell_models import CellModel, Section
from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms

logger = logging.getLogger(__name__)

TEMPLATE = "template.hoc"
TIME_LIMIT_S = 300.0
# In this order: each uses what those before it define.
_LIBRARIES = ("stdrun.hoc", "import3d.hoc")
_PARTS = ("constants.hoc", "morphology.hoc", "biophysics.hoc", "synapses/synapses.hoc", TEMPLATE)
# A package is a few MB; what unpacks to more than this is none.
_MAX_UNPACKED_BYTES = 500_000_000
_BEGIN = re.compile(r"^\s*begintemplate\s+([A-Za-z_]\w*)", re.MULTILINE)
_NEW = re.compile(r"\bnew\s+([A-Za-z_]\w*)")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# The packages count StochKv's gkbar as pS/um2, and the gmax that takes its place is in S/cm2.
_STOCHKV_UNIT = 1e-4


def is_nmc_package(path: str | Path) -> bool:
    """Tell whether a folder or a zip file is a cell package of the portal.

    Parameters
    ----------
    path : str or Path
        Anything that may be there.

    Returns
    -------
    bool
        Whether it holds a ``template.hoc``, which in a zip may lie one folder down.
    """
    path = Path(path)
    if path.is_dir():
        return (path / TEMPLATE).is_file()
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _root_in_zip(archive.namelist()) is not None
    except (zipfile.BadZipFile, OSError) as error:
        logger.warning("%s is passed over, as it cannot be opened as a zip: %s", path, error)
        return False


def read_nmc_package(path: str | Path, *, time_limit_s: float = TIME_LIMIT_S) -> CellModel:
    """Read a cell package of the portal, by letting hoc build its cell in a fresh process.

    Its ``StochKv``, a channel with noise, becomes ``StochKv_deterministic``; synapses are left out. hoc is a language
    that can do anything: read no package that you would not run.

    Parameters
    ----------
    path : str or Path
        A folder or a zip file, see `is_nmc_package`.
    time_limit_s : float
        Longest time that hoc may take, in s.

    Returns
    -------
    CellModel
        Under the name of the folder or of the zip file.

    Raises
    ------
    FileNotFoundError
        There is no package at `path`, or no C++ compiler for the mechanisms.
    ValueError
        The zip is broken or unsafe to unpack, no template begins in ``template.hoc``, hoc cannot build the cell (the
        message ends with what it said), takes too long or dies, or the cell has what a `CellModel` cannot hold.
    """
    path = Path(path)
    if not is_nmc_package(path):
        raise FileNotFoundError(f"{path} is no cell package: neither a folder nor a zip file with {TEMPLATE} in it.")
    if path.is_dir():
        return _read_folder(path, name=path.resolve().name, time_limit_s=time_limit_s)
    with tempfile.TemporaryDirectory(prefix="simsort-nmc-") as scratch:
        return _read_folder(_unpack(path, Path(scratch)), name=path.stem, time_limit_s=time_limit_s)


def _root_in_zip(members: list[str]) -> str | None:
    """Folder that the package lies in inside its zip: "" for none; None if there is no package."""
    roots = [name.rpartition("/")[0] for name in members if name.rpartition("/")[2] == TEMPLATE]
    roots = [root for root in roots if "/" not in root]
    return min(roots, key=len) if roots else None


def _unpack(path: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                _check_member(path, member)
            if sum(member.file_size for member in members) > _MAX_UNPACKED_BYTES:
                raise ValueError(
                    f"{path} unpacks to more than {_MAX_UNPACKED_BYTES / 1e6:.0f} MB: no cell is so large."
                )
            archive.extractall(folder)
            return folder / (_root_in_zip(archive.namelist()) or "")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        # NotImplementedError and RuntimeError: compressed in an unknown way, or encrypted.
        raise ValueError(f"{path} cannot be unpacked: {error}. Fetch it again.") from error


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuse what would be written outside the folder that the zip is unpacked into."""
    # `orig_filename` is what the zip says; `filename` is cut at a null byte.
    name = PurePosixPath(member.orig_filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or ":" in member.orig_filename or is_link:
        raise ValueError(f"{path} is refused: its member {member.orig_filename!r} leads outside of the package.")


def _read_folder(folder: Path, *, name: str, time_limit_s: float) -> CellModel:
    begin = _BEGIN.search(_hoc_text(folder / TEMPLATE))
    if begin is None:
        raise ValueError(f"{name}: no template begins in {TEMPLATE} (begintemplate NAME): it is no cell of the portal.")
    # Here, so that it does not count as the cell's time, and its errors come as they are.
    library = compile_mechanisms()
    with tempfile.TemporaryDirectory(prefix="simsort-nmc-") as scratch:
        said = Path(scratch) / "said"
        # A fresh process: a fork would share the parent's threads, and its NEURON.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        arguments = (folder.resolve(), begin.group(1), name, library, said, theirs)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        try:
            if not ours.poll(time_limit_s):
                raise ValueError(f"{name}: hoc did not build the cell within {time_limit_s:g} s.{_last_words(said)}")
            answer = ours.recv()
        except EOFError as error:
            process.join()
            message = f"{name}: the process that built the cell died (exit code {process.exitcode})."
            raise ValueError(message + _last_words(said)) from error
        finally:
            ours.close()
            # It has nothing left to do, or is not waited for.
            process.kill()
            process.join()
        if isinstance(answer, str):
            raise ValueError(f"{name}: {answer}{_last_words(said)}")
        return answer


def _hoc_text(path: Path) -> str:
    return _COMMENT.sub(" ", path.read_text(encoding="utf-8", errors="replace"))


def _last_words(path: Path) -> str:
    """What hoc said last, to end a message with."""
    text = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    return f" hoc said:\n{text[-1500:]}" if text else ""


def _work(folder: Path, template: str, name: str, library: Path, said: Path, connection: Connection) -> None:
    # Says on import otherwise that there is no screen.
    os.environ.setdefault("NEURON_MODULE_OPTIONS", "-nogui")
    # hoc writes past Python's streams: its errors are kept, what else it prints is not.
    with said.open("wb") as file, open(os.devnull, "wb") as nowhere:
        os.dup2(file.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
    try:
        cell = _build(folder, template, library)
        answer: CellModel | str = CellModel(name=name, sections=tuple(_sections(cell)))
    except RuntimeError as error:
        answer = f"hoc could not build the cell from {TEMPLATE} and the files that it loads ({error})."
    except (ValueError, OSError, ArithmeticError, MemoryError, AttributeError, LookupError, TypeError) as error:
        answer = str(error).removeprefix(f"{name}: ") or repr(error)
    connection.send(answer)


def _build(folder: Path, template: str, library: Path) -> Any:
    """Build the cell; its sections live as long as what is returned."""
    from neuron import h

    from spikeinterface_simsort.simulation.neuron_cells import TEMPERATURE, load_mechanisms

    load_mechanisms(library)
    # The files name each other, and the morphology, from there.
    os.chdir(folder)
    for part in _LIBRARIES:
        h.load_file(part)
    h.celsius = TEMPERATURE
    texts = [_hoc_text(path) for path in (folder / part for part in _PARTS) if path.is_file()]
    known = {name for text in texts for name in _BEGIN.findall(text)}
    for name in sorted({name for text in texts for name in _NEW.findall(text)} - known):
        # hoc wants to know even the synapses that it is not going to make, and the project has none.
        if not hasattr(h, name):
            h(f"begintemplate {name}\nendtemplate {name}\n")
    for part in _PARTS:
        if Path(part).is_file():
            h.load_file(1, part)
    # 0: without synapses.
    return getattr(h, template)(0)


def _sections(cell: Any) -> Iterator[Section]:
    from neuron import h

    sections = [section for section in h.allsec() if section.cell() == cell and not _is_unused(section)]
    names = _section_names([section.name() for section in sections])
    # Sections cannot be keys, their full names are.
    name_of = {section.name(): name for section, name in zip(sections, names, strict=True)}
    parameters: dict[str, list[str]] = {}
    for section, name in zip(sections, names, strict=True):
        parent = section.parentseg()
        inserted = [mechanism.name() for mechanism in section(0.5)]
        yield Section(
            name=name,
            length=section.L,
            diam=_one_value(section, "diam", name=name) if not section.n3d() else section.diam,
            points=tuple(
                (section.x3d(i), section.y3d(i), section.z3d(i), section.diam3d(i)) for i in range(section.n3d())
            ),
            num_segments=section.nseg,
            axial_resistivity=section.Ra,
            capacitance=_one_value(section, "cm", name=name),
            parent=None if parent is None else name_of[parent.sec.name()],
            parent_x=1.0 if parent is None else parent.x,
            child_x=0.0 if parent is None else section.orientation(),
            mechanisms=dict(
                _renamed(mechanism, _parameter_values(section, mechanism, known=parameters))
                for mechanism in inserted
                if not mechanism.endswith("_ion")
            ),
            ions={
                ion: {
                    "e": _one_value(section, f"e{ion}", name=name),
                    "i": _one_value(section, f"{ion}i", name=name),
                    "o": _one_value(section, f"{ion}o", name=name),
                }
                for ion in (mechanism.removesuffix("_ion") for mechanism in inserted if mechanism.endswith("_ion"))
            },
        )


def _is_unused(section: Any) -> bool:
    """Tell whether a section was but declared: templates declare apical dendrites for cells without, too."""
    alone = section.parentseg() is None and not section.children()
    return alone and not section.n3d() and not section.name().rpartition(".")[2].startswith("soma")


def _section_names(full_names: list[str]) -> list[str]:
    """Names as NetPyNE gives them: ``cell[0].dend[3]`` becomes ``dend_3``, and the only ``soma[0]`` ``soma``."""
    own = [name.rpartition(".")[2] for name in full_names]
    count = Counter(name.partition("[")[0] for name in own)
    return [
        base if count[base] == 1 else f"{base}_{index.rstrip(']')}" if index else base
        for base, _, index in (name.partition("[") for name in own)
    ]


def _one_value(section: Any, quantity: str, *, name: str) -> float:
    """Value of what a `Section` holds one value of."""
    values = {float(getattr(segment, quantity)) for segment in section}
    if len(values) > 1:
        raise ValueError(f"{quantity} of section {name} differs from segment to segment: such cells cannot be read.")
    return values.pop()


def _parameter_values(section: Any, mechanism: str, *, known: dict[str, list[str]]) -> dict[str, Any]:
    """Parameters of a mechanism: a number, or one number a segment."""
    from neuron import h

    if mechanism not in known:
        # 1: what its PARAMETER block declares, as far as it may differ from place to place.
        declared, name = h.MechanismStandard(mechanism, 1), h.ref("")
        known[mechanism] = []
        for index in range(int(declared.count())):
            # Writes the name, and returns the number of values that it stands for.
            if declared.name(name, index) > 1:
                raise ValueError(f"the mechanism {mechanism} has an array, {name[0]}: such cells cannot be read.")
            known[mechanism].append(name[0].removesuffix(f"_{mechanism}"))
    found = {}
    for parameter in known[mechanism]:
        values = [float(getattr(segment, f"{parameter}_{mechanism}")) for segment in section]
        found[parameter] = values[0] if len(set(values)) == 1 else values
    return found


def _renamed(mechanism: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Mechanism and parameters as the project's simulation wants them."""
    if mechanism != "StochKv":
        return mechanism, parameters
    density = parameters["gkbar"]
    scaled = [_STOCHKV_UNIT * at for at in density] if isinstance(density, list) else _STOCHKV_UNIT * density
    return "StochKv_deterministic", {"gmax": scaled}
