"""Cells in NEURON against the references, our own cells, and the compilation of mechanisms.

NEURON keeps one world a process, and changing it under a cell that runs is fatal: each test builds its cells, resets
them, and lets go of them at its end.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("neuron")
if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
    pytest.skip("cells need a C++ compiler", allow_module_level=True)
# Says on import otherwise that there is no screen.
os.environ.setdefault("NEURON_MODULE_OPTIONS", "-nogui")

from benchmarks.reference_traces import PARTS, Traces, compare, criteria, draw, markdown, read_reference
from spikeinterface_simsort.simulation import mechanisms
from spikeinterface_simsort.simulation.cell_models import CellModel
from spikeinterface_simsort.simulation.cells import parse_netpyne, read_cells
from spikeinterface_simsort.simulation.drive import find_rheobase
from spikeinterface_simsort.simulation.extracellular import lead_field
from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms, mechanism_key
from spikeinterface_simsort.simulation.neuron_cells import V_INIT, NeuronCell
from spikeinterface_simsort.simulation.own_cells import (
    COUNTS,
    make_own_cell,
    own_cells_folder,
    to_netpyne,
    write_own_cells,
)
from spikeinterface_simsort.simulation.spike_currents import DT, spike_samples

REFERENCES = ("L5_SBC_cACint209_1", "L6_SBC_bNAC219_1")
OWN = [(kind, number) for kind, count in COUNTS.items() for number in range(1, count + 1)]


@pytest.fixture(autouse=True)
def empty_world() -> Iterator[None]:
    # What a test leaves in a cycle would else be collected, out of NEURON's world, while the next one's cell runs.
    yield
    gc.collect()


@pytest.fixture(scope="module")
def reference_models(shared_data) -> dict[str, CellModel]:
    cells = read_cells(shared_data / "cells" / "nmc_cells.tar.xz", names=REFERENCES)
    return {cell.name: cell for cell in cells}


@pytest.fixture(scope="module")
def model() -> CellModel:
    return make_own_cell("OWN_BP_ad", 1)


def noise(milliseconds: float, *, seed: int = 0) -> np.ndarray:
    return 0.1 + 0.05 * np.random.default_rng(seed).normal(size=round(milliseconds / DT))


@pytest.mark.parametrize("name", REFERENCES)
def test_reference(reference_models, shared_data, name):
    current, reference = read_reference(shared_data / "reference_traces" / f"{name}.npz")
    cell = NeuronCell(reference_models[name], max_segment_um=None)
    v_soma, currents = cell.run(current)
    ours = Traces(v_soma=v_soma, currents={part: currents[cell.parts == part].sum(axis=0) for part in PARTS})
    row = compare(ours, reference, current=current)
    assert row["spikes_reference"] > 10
    table = pd.DataFrame([row | {"segments": len(cell.seg_diam)}], index=[name])
    assert criteria(table) == dict.fromkeys(criteria(table), True)
    # As exact as float32 has it.
    assert row["rms_mv"] < 1e-4
    assert max(row[f"{part}_percent"] for part in PARTS) < 0.01 < row["soma_stored_percent"]
    assert "FAIL" not in markdown(table)
    assert len(draw({name: (ours, reference)}).axes) == 2


def test_criteria_of_the_comparison_can_fail():
    time = np.arange(4000) * DT
    spikes = 100.0 * np.exp(-(((time % 25.0) - 12.0) ** 2)) - 70.0
    zero = np.zeros(len(time))
    reference = Traces(v_soma=spikes, currents=dict.fromkeys(PARTS, spikes + 70.0))
    same = pd.DataFrame([compare(reference, reference, current=zero)])
    assert all(criteria(same).values())
    late = Traces(v_soma=np.roll(spikes, 4), currents={part: np.roll(i, 4) for part, i in reference.currents.items()})
    row = compare(late, reference, current=zero)
    assert row["time_ms"] == pytest.approx(4 * DT)
    assert list(criteria(pd.DataFrame([row])).values()) == [True, False, False, False]
    silent = Traces(v_soma=zero - 70.0, currents=reference.currents)
    row = compare(silent, reference, current=zero)
    assert row["spikes"] == 0 and row["spikes_reference"] == 4 and np.isnan(row["time_ms"])
    assert list(criteria(pd.DataFrame([row])).values()) == [False, False, False, True]


def test_currents_sum_to_zero(model):
    cell = NeuronCell(model)
    v_soma, currents = cell.run(noise(50.0))
    assert v_soma.max() > 0.0
    assert currents.dtype == np.float32 and currents.shape == (len(cell.seg_diam), len(v_soma))
    assert np.abs(currents.sum(axis=0, dtype=float)).max() < 1e-6 * np.abs(currents).max()


def test_electrode_is_not_in_the_currents(model):
    cell = NeuronCell(model)
    cell.rest()
    current = np.zeros(400)
    current[200:] = 0.02
    _, currents = cell.run(current)
    # What the electrode puts in would show at once; what flows on to other segments takes its time.
    assert np.abs(np.diff(currents[cell.soma], axis=-1)[1:]).max() < 0.5 * 0.02
    assert np.ptp(currents[cell.soma, 1:]) > 0.5 * 0.02


def test_run_in_pieces_equals_run_in_one(model):
    cell = NeuronCell(model)
    current = noise(30.0)
    v_soma, currents = cell.run(current)
    cell.reset()
    pieces = [cell.run(piece) for piece in np.split(current, [1, 500, 501])]
    np.testing.assert_array_equal(np.concatenate([v for v, _ in pieces]), v_soma)
    np.testing.assert_array_equal(np.concatenate([i for _, i in pieces], axis=1), currents)


def test_rest_and_reset(model):
    cell = NeuronCell(model)
    v_first, _ = cell.run(np.zeros(1))
    assert v_first[0] == pytest.approx(V_INIT, abs=0.5)
    cell.rest()
    current = noise(20.0)
    v_soma, currents = cell.run(current)
    assert abs(v_soma[0] - V_INIT) > 1.0
    # The second time comes from what was kept.
    cell.rest()
    again, currents_again = cell.run(current)
    np.testing.assert_array_equal(again, v_soma)
    # The first sample is the current of the step before, which NEURON does not keep.
    np.testing.assert_array_equal(currents_again[:, 1:], currents[:, 1:])
    cell.reset()
    np.testing.assert_array_equal(cell.run(np.zeros(1))[0], v_first)


def test_second_cell_leaves_the_first_as_it_is(model):
    current = noise(20.0)
    first = NeuronCell(model)
    alone = first.run(current)
    second = NeuronCell(make_own_cell("OWN_BC_fs", 1))
    first.reset()
    beside = first.run(current)
    second.reset()
    other = second.run(current)
    for ours, expected in zip(beside, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert len(other[1]) == len(second.seg_diam) != len(first.seg_diam)


def test_segments(model):
    cell = NeuronCell(model, max_segment_um=30.0)
    sections = {section.name: section for section in model.sections}
    assert len(cell.seg_diam) == sum(1 + 2 * int(section.length / 30.0) for section in model.sections)
    assert len(NeuronCell(model, max_segment_um=None).seg_diam) == sum(s.num_segments for s in model.sections)
    np.testing.assert_allclose(cell.seg_start[cell.soma] + cell.seg_end[cell.soma], 0.0, atol=1e-4)
    assert list(np.unique(cell.parts)) == ["axon", "dend", "soma"] and cell.parts[cell.soma] == "soma"
    lengths = np.linalg.norm(cell.seg_end - cell.seg_start, axis=1)
    axon = sum(section.length for name, section in sections.items() if name.startswith("axon"))
    assert lengths[cell.parts == "axon"].sum() == pytest.approx(axon, abs=0.5)
    assert cell.seg_diam[cell.soma] == pytest.approx(sections["soma"].diam, abs=0.01)


def with_mechanisms(model: CellModel, mechanisms: dict[str, Any]) -> CellModel:
    soma, *others = model.sections
    return CellModel(model.name, (replace(soma, mechanisms=mechanisms), *others))


def test_unknown_mechanism(model):
    with pytest.raises(ValueError, match="OWN_BP_ad_1 needs the mechanism Kv99, which there is none of"):
        NeuronCell(with_mechanisms(model, {"Kv99": {"g": 1.0}}))


def test_unknown_parameter(model):
    with pytest.raises(ValueError, match="OWN_BP_ad_1: the mechanism Ih has no parameter gIhfoo"):
        NeuronCell(with_mechanisms(model, {"Ih": {"gIhfoo": 1.0}}))


def trough_to_peak_ms(cell: NeuronCell, currents: np.ndarray) -> float:
    """From outside: from the trough to the peak after it, at 50 um beside the soma; median of eight places."""
    angles = np.arange(8) * np.pi / 4
    ring = 50.0 * np.column_stack([np.cos(angles), np.zeros(8), np.sin(angles)])
    neuron: Any = SimpleNamespace(seg_start=cell.seg_start, seg_end=cell.seg_end, seg_diam=cell.seg_diam)
    potential = lead_field(neuron, soma_position=np.zeros(3), contact_positions=ring) @ currents
    assert np.median(potential.min(axis=1)) < -5.0  # uV
    troughs = potential.argmin(axis=1)
    after = [trace[trough : trough + 80].argmax() for trace, trough in zip(potential, troughs, strict=True)]
    return float(np.median(after)) * DT


@pytest.mark.parametrize(("kind", "number"), OWN)
def test_own_cell(kind, number):
    with own_cells_folder() as folder:
        (model,) = read_cells(folder, names=[f"{kind}_{number}"])
    cell = NeuronCell(model)
    cell.rest()
    v_rest, _ = cell.run(np.zeros(4000))
    assert -80.0 < v_rest.min() and v_rest.max() < -60.0 and np.ptp(v_rest) < 1.0
    rheobase = find_rheobase(cell)
    assert 0.03 <= rheobase <= 1.0
    for factor in (1.5, 3.0):
        cell.rest()
        v_soma, currents = cell.run(np.full(round(300.0 / DT), factor * rheobase))
        spikes = spike_samples(v_soma=v_soma)
        # It goes on to the end.
        assert len(spikes) > 5 and spikes[-1] * DT > 225.0
        assert v_soma[spikes].min() > 0.0
        if factor == 1.5:
            third = spikes[2]
            width = trough_to_peak_ms(cell, currents[:, third - 100 : third + 160])
            intervals = np.diff(spikes)
    if kind == "OWN_BC_fs":
        assert width < 0.4 and intervals[-1] < 1.2 * intervals[0]
    else:
        assert 0.4 <= width <= 0.8 and intervals[-1] > 1.2 * intervals[0]


def test_own_cells_that_ship_are_those_of_the_seed(tmp_path):
    written = write_own_cells(tmp_path)
    with own_cells_folder() as folder:
        shipped = sorted(folder.glob("*.json"))
        assert [path.name for path in shipped] == sorted(path.name for path in written)
        for path in shipped:
            assert path.stat().st_size < 30_000
            assert path.read_text(encoding="utf-8") == (tmp_path / path.name).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", COUNTS)
def test_own_cell_survives_json(kind):
    cell = make_own_cell(kind, 1)
    assert parse_netpyne(to_netpyne(cell), name=cell.name) == cell
    assert make_own_cell(kind, 1, seed=1) != cell != make_own_cell(kind, 2)


def test_no_such_own_cell():
    with pytest.raises(ValueError, match="There is no kind 'mouse'"):
        make_own_cell("mouse", 1)


@pytest.fixture
def sources(tmp_path) -> Path:
    """A folder with one of our mechanisms."""
    folder = tmp_path / "sources"
    folder.mkdir()
    with as_file(files("spikeinterface_simsort.simulation") / "mechanisms") as ours:
        shutil.copy(ours / "Im.mod", folder / "Im.mod")
    return folder


def test_mechanisms_are_compiled_once(sources, tmp_path, monkeypatch):
    library = compile_mechanisms(source_folder=sources, cache=tmp_path / "cache")
    assert library.is_file()
    assert library.is_relative_to(tmp_path / "cache" / "mechanisms")
    calls = []
    monkeypatch.setattr(mechanisms, "_run_nrnivmodl", lambda paths, *, folder: calls.append(folder))
    assert compile_mechanisms(source_folder=sources, cache=tmp_path / "cache") == library
    assert not calls
    text = (sources / "Im.mod").read_text(encoding="utf-8")
    (sources / "Im.mod").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="holds no compiled library"):
        compile_mechanisms(source_folder=sources, cache=tmp_path / "cache")
    assert len(calls) == 1


def test_key_of_mechanisms(monkeypatch):
    key = mechanism_key({"a.mod": "one", "b.mod": "two"})
    assert len(key) == 16 and int(key, 16) >= 0
    assert mechanism_key({"b.mod": "two", "a.mod": "one"}) == key
    assert mechanism_key({"a.mod": "one", "b.mod": "TWO"}) != key
    assert mechanism_key({"a.mod": "one", "c.mod": "two"}) != key
    assert mechanism_key({"a.mod": "one"}) != key
    monkeypatch.setattr(mechanisms, "version", lambda name: "0.0")
    assert mechanism_key({"a.mod": "one", "b.mod": "two"}) != key


def left_over(cache: Path) -> list[Path]:
    return list((cache / "mechanisms").iterdir()) if (cache / "mechanisms").exists() else []


def test_no_compiler(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(FileNotFoundError, match="need a C\\+\\+ compiler"):
        compile_mechanisms(source_folder=sources, cache=tmp_path / "cache")
    assert not left_over(tmp_path / "cache")


def test_broken_mechanism(sources, tmp_path):
    (sources / "Im.mod").write_text("NEURON { SUFFIX broken }\nSTATE { m", encoding="utf-8")
    with pytest.raises(RuntimeError, match="could not compile the mechanisms"):
        compile_mechanisms(source_folder=sources, cache=tmp_path / "cache")
    assert not left_over(tmp_path / "cache")


def test_no_mechanisms(tmp_path):
    with pytest.raises(FileNotFoundError, match="no mechanisms"):
        compile_mechanisms(source_folder=tmp_path, cache=tmp_path / "cache")
