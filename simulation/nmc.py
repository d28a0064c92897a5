"""Cell packages of the NMC portal (Markram et al. 2015, Cell 163:456): a hoc template with its morphology."""

from __future__ import annotations

from pathlib import Path

from spikeinterface_simsort.simulation.cells import CellModel


def is_nmc_package(path: Path) -> bool:
    """Tell whether a folder or a zip file is a cell package of the portal."""
    return path.is_dir() and (path / "template.hoc").exists()


def read_nmc_package(path: Path) -> CellModel:
    """Read a cell package of the portal."""
    raise ValueError(f"{path}: packages of the NMC portal cannot be read yet.")
