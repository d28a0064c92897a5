"""Cell packages of the NMC portal: a miniature one is written, read, and runs as in hoc."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("neuron")
if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
    pytest.skip("cells need a C++ compiler", allow_module_level=True)

from spikeinterface_simsort.simulation import nmc
from spikeinterface_simsort.simulation.cell_models import CellModel, Section
from spikeinterface_simsort.simulation.cells import iterate_cells, read_cells
from spikeinterface_simsort.simulation.nmc import is_nmc_package, read_nmc_package

CELL = "L5_MINI_cTEST1_1"
NEAR, FAR = 2e-5, 1e-4

MORPHOLOGY = """\
("CellBody"
  (Color Red)
  (CellBody)
  (6 0 0 0) (4 4 0 0) (0 6 0 0) (-4 4 0 0) (-6 0 0 0) (-4 -4 0 0) (0 -6 0 0) (4 -4 0 0)
)
((Dendrite)
  (5 0 0 2.0) (120 10 0 1.6) (250 0 20 1.2)
  (
    (250 0 20 1.0) (320 40 20 0.8)
  |
    (250 0 20 1.0) (330 -50 20 0.6)
  )
)
((Dendrite)
  (0 5 0 1.5) (0 90 0 1.0)
)
((Axon)
  (0 -5 0 1.0) (0 -200 0 0.5)
)
"""

MORPHOLOGY_HOC = """\
begintemplate mini_shape
public load
proc load() { localobj reader, importer
    reader = new Import3d_Neurolucida3()
    reader.quiet = 1
    reader.input("morphology/mini.asc")
    importer = new Import3d_GUI(reader, 0)
    importer.instantiate($o1)
}
endtemplate mini_shape
"""

BIOPHYSICS_HOC = """\
begintemplate mini_membrane
public insert_in
proc insert_in() { localobj cell
    cell = $o1
    forsec cell.all {
        insert pas
        e_pas = -75
        g_pas = 4e-5
        cm = 1
        Ra = 110
    }
    forsec cell.basal {
        cm = 2
        insert Ih
        for (x, 0) { gIhbar_Ih(x) = 2e-5 + 8e-5 * x }
    }
    forsec cell.somatic {
        insert NaTs2_t
        insert SKv3_1
        gNaTs2_tbar_NaTs2_t = 0.9
        gSKv3_1bar_SKv3_1 = 0.3
        ena = 50
        ek = -85
    }
    forsec cell.axonal {
        insert NaTs2_t
        insert StochKv
        gNaTs2_tbar_NaTs2_t = 1.5
        gkbar_StochKv = 25
        for (x, 0) { setdata_StochKv(x)  setRNG_StochKv(1, 2) }
        ena = 50
        ek = -85
    }
}
endtemplate mini_membrane
"""

# Synapses that the project does not know, in code that does not run.
SYNAPSES_HOC = """\
begintemplate mini_synapses
objref one
// new NeitherIsThisOne()
proc init() { one = new SynapseOfThePackage(0.5) }
endtemplate mini_synapses
"""

TEMPLATE_HOC = """\
/* begintemplate not_this_one */
begintemplate mini_L5
public soma, dend, apic, axon, all, somatic, basal, apical, axonal, synapses
objref all, somatic, basal, apical, axonal, synapses, this
create soma[1], dend[1], apic[1], axon[1]
proc init() { localobj shape, membrane
    all = new SectionList()
    somatic = new SectionList()
    basal = new SectionList()
    apical = new SectionList()
    axonal = new SectionList()
    shape = new mini_shape()
    shape.load(this)
    replace_axon()
    forsec all { nseg = 1 + 2 * int(L / 40) }
    membrane = new mini_membrane()
    membrane.insert_in(this)
    if ($1) { synapses = new mini_synapses() }
}
proc replace_axon() {
    forsec axonal { delete_section() }
    create axon[2]
    for i = 0, 1 {
        access axon[i]
        axonal.append()
        all.append()
        L = 30
        diam = 1.1
    }
    soma[0] connect axon[0](0), 1
    axon[0] connect axon[1](0), 1
}
endtemplate mini_L5
"""


def write_package(folder: Path, **replaced: str) -> Path:
    """Write a package; `replaced` gives other text for files named as in ``template``."""
    files = {
        "morphology/mini.asc": MORPHOLOGY,
        "morphology.hoc": MORPHOLOGY_HOC,
        "biophysics.hoc": BIOPHYSICS_HOC,
        "synapses/synapses.hoc": SYNAPSES_HOC,
        "template.hoc": TEMPLATE_HOC,
        "cellinfo.json": "{}",
        "mechanisms/NotCompiled.mod": "this is no NMODL",
    } | {f"{name}.hoc": text for name, text in replaced.items()}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def zip_package(folder: Path, path: Path, *, prefix: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("packages") / CELL)


@pytest.fixture(scope="module")
def model(package: Path) -> CellModel:
    return read_nmc_package(package)


def section_of(model: CellModel, name: str) -> Section:
    return next(section for section in model.sections if section.name == name)


# What is read


def test_sections(model: CellModel) -> None:
    assert model.name == CELL
    assert sorted(section.name for section in model.sections) == [
        *("axon_0", "axon_1"),
        *("dend_0", "dend_1", "dend_2", "dend_3"),
        "soma",
    ]
    attached = {section.name: (section.parent, section.parent_x, section.child_x) for section in model.sections}
    assert attached["soma"][0] is None
    assert attached["axon_0"] == ("soma", 1.0, 0.0)
    assert attached["axon_1"] == ("axon_0", 1.0, 0.0)
    # The importer ties dendrites to the middle of the soma.
    assert attached["dend_0"] == ("soma", 0.5, 0.0)
    assert attached["dend_1"] == attached["dend_2"] == ("dend_0", 1.0, 0.0)


def test_shape(model: CellModel) -> None:
    axon = section_of(model, "axon_0")
    assert (axon.length, axon.diam, axon.points, axon.num_segments) == (30.0, 1.1, (), 1)
    dendrite = section_of(model, "dend_1")
    ends = [section_of(model, name).points[-1] for name in ("dend_1", "dend_2")]
    np.testing.assert_allclose(sorted(ends), [(320, 40, 20, 0.8), (330, -50, 20, 0.6)], rtol=1e-6)
    assert dendrite.num_segments == 1 + 2 * int(dendrite.length / 40)
    steps = np.diff(np.array(dendrite.points)[:, :3], axis=0)
    assert dendrite.length == pytest.approx(np.linalg.norm(steps, axis=1).sum(), rel=1e-5)
    assert (dendrite.axial_resistivity, dendrite.capacitance) == (110.0, 2.0)
    assert section_of(model, "soma").capacitance == 1.0


def test_densities(model: CellModel) -> None:
    soma, axon, dendrite = (section_of(model, name) for name in ("soma", "axon_1", "dend_0"))
    assert soma.mechanisms == {
        "pas": {"g": 4e-5, "e": -75.0},
        "NaTs2_t": {"gNaTs2_tbar": 0.9},
        "SKv3_1": {"gSKv3_1bar": 0.3},
    }
    # The package's unit, of the channel with noise, is not ours.
    assert axon.mechanisms["StochKv_deterministic"] == {"gmax": pytest.approx(2.5e-3)}
    assert "StochKv" not in axon.mechanisms
    middles = (np.arange(dendrite.num_segments) + 0.5) / dendrite.num_segments
    assert dendrite.num_segments > 5
    np.testing.assert_allclose(dendrite.mechanisms["Ih"]["gIhbar"], NEAR + (FAR - NEAR) * middles)


def test_ions(model: CellModel) -> None:
    assert set(section_of(model, "soma").ions) == {"na", "k"}
    assert section_of(model, "soma").ions["na"]["e"] == 50.0
    assert section_of(model, "axon_0").ions["k"]["e"] == -85.0
    assert section_of(model, "dend_0").ions == {}


# How it behaves


def _simulate_hoc(folder: Path, connection: Connection) -> None:
    """Somatic voltage of hoc's own cell, in mV, under the current that `_simulate_model` takes."""
    from neuron import h

    from spikeinterface_simsort.simulation.mechanisms import compile_mechanisms
    from spikeinterface_simsort.simulation.neuron_cells import TEMPERATURE, V_INIT
    from spikeinterface_simsort.simulation.spike_currents import DT

    cell = nmc._build(folder, "mini_L5", compile_mechanisms())
    soma = cell.soma[0]
    electrode = h.IClamp(soma(0.5))
    electrode.delay, electrode.dur = 0.0, 1e9
    voltage = h.Vector().record(soma(0.5)._ref_v)
    h.celsius, h.dt = TEMPERATURE, DT
    h.finitialize(V_INIT)
    for amplitude in stimulus(DT):
        electrode.amp = amplitude
        h.fadvance()
    connection.send(voltage.as_numpy().copy())


def _simulate_model(model: CellModel, connection: Connection) -> None:
    from spikeinterface_simsort.simulation.neuron_cells import NeuronCell
    from spikeinterface_simsort.simulation.spike_currents import DT

    connection.send(NeuronCell(model, max_segment_um=None).run(np.array(stimulus(DT)))[0])


def stimulus(dt: float) -> list[float]:
    """Current in nA: nothing for 5 ms, then enough for spikes."""
    return [0.0] * round(5 / dt) + [0.6] * round(35 / dt)


def in_child(work: Any, *args: Any) -> np.ndarray:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(*args, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(120), "took too long"
        return ours.recv()
    finally:
        process.kill()
        process.join()


def test_runs_as_in_hoc(package: Path, model: CellModel) -> None:
    # The channel whose noise is left out is stepped in another way by the mechanism that takes its place.
    quiet = write_package(
        package.parent / "without_noise", biophysics=BIOPHYSICS_HOC.replace("gkbar_StochKv = 25", "gkbar_StochKv = 0")
    )
    expected = in_child(_simulate_hoc, quiet)
    got = in_child(_simulate_model, read_nmc_package(quiet))
    assert expected.max() > 10, "it must spike, or little is compared"
    assert len(got) <= len(expected)
    # NEURON keeps points in single precision, so lengths lose their last digits on the way.
    np.testing.assert_allclose(got, expected[: len(got)], atol=1e-3)


def test_channel_without_noise(package: Path, model: CellModel) -> None:
    expected, got = in_child(_simulate_hoc, package), in_child(_simulate_model, model)
    at_expected, at_got = (np.flatnonzero((v[:-1] < 0) & (v[1:] >= 0)) for v in (expected[: len(got)], got))
    assert len(at_expected) == len(at_got) >= 3
    # In samples: see StochKv_deterministic.mod for why they differ at all.
    assert np.abs(at_expected - at_got).max() <= 2


# Where it is read from


@pytest.mark.parametrize("prefix", ["", f"{CELL}/"])
def test_zip(package: Path, model: CellModel, tmp_path: Path, prefix: str) -> None:
    path = zip_package(package, tmp_path / f"{CELL}.zip", prefix=prefix)
    assert is_nmc_package(path)
    assert read_nmc_package(path) == model
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_folder_of_packages(package: Path, model: CellModel, tmp_path: Path) -> None:
    zip_package(package, tmp_path / "L1_ZIPPED_cTEST1_2.zip", prefix=f"{CELL}/")
    shutil.copytree(package, tmp_path / CELL)
    write_package(tmp_path / "L6_BROKEN_cTEST1_1", template="begintemplate broken\nproc init() { (}\n")
    (tmp_path / "notes.txt").write_text("no cell")
    found = dict(iterate_cells(tmp_path))
    assert list(found) == ["L1_ZIPPED_cTEST1_2", CELL, "L6_BROKEN_cTEST1_1"]
    assert isinstance(found["L6_BROKEN_cTEST1_1"], ValueError)
    assert found[CELL] == model
    assert [cell.name for cell in read_cells(tmp_path, names=[CELL])] == [CELL]


def test_what_is_no_package(package: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as archive:
        archive.writestr("a/b/template.hoc", TEMPLATE_HOC)
    for path in (
        tmp_path,
        tmp_path / "broken.zip",
        tmp_path / "deep.zip",
        tmp_path / "nothing",
        package / "cellinfo.json",
    ):
        assert not is_nmc_package(path)
    with pytest.raises(FileNotFoundError, match="is no cell package"):
        read_nmc_package(tmp_path)


# What is refused


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "cell/../../outside.txt", "..\\outside.txt", "C:x"])
def test_zip_that_leads_outside(tmp_path: Path, name: str) -> None:
    path = tmp_path / "inner" / "bad.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("template.hoc", TEMPLATE_HOC)
        archive.writestr(name, "outside")
    with pytest.raises(ValueError, match="is refused: its member .* leads outside"):
        read_nmc_package(path)
    assert not list(tmp_path.rglob("outside.txt"))


def test_zip_with_a_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("template.hoc", TEMPLATE_HOC)
        link = zipfile.ZipInfo("morphology")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, os.fspath(tmp_path))
    with pytest.raises(ValueError, match="is refused"):
        read_nmc_package(tmp_path / "bad.zip")


def test_zip_too_large(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmc, "_MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_nmc_package(zip_package(package, tmp_path / "large.zip", prefix=""))


def test_zip_corrupted(package: Path, tmp_path: Path) -> None:
    path = zip_package(package, tmp_path / "cell.zip", prefix="")
    content = path.read_bytes()
    assert b"mini_membrane" in content
    path.write_bytes(content.replace(b"mini_membrane", b"mini_mEmbrane"))
    with pytest.raises(ValueError, match="cannot be unpacked: Bad CRC"):
        read_nmc_package(path)


def test_no_template(tmp_path: Path) -> None:
    write_package(tmp_path / "cell", template="// begintemplate hidden\ncreate soma\n")
    with pytest.raises(ValueError, match="cell: no template begins in template.hoc"):
        read_nmc_package(tmp_path / "cell")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"template": "begintemplate broken\nproc init() { (}\n"}, "syntax error"),
        ({"biophysics": BIOPHYSICS_HOC.replace("insert Ih", "insert NoSuchChannel")}, "NoSuchChannel"),
        ({"morphology": MORPHOLOGY_HOC.replace("mini.asc", "missing.asc")}, "missing.asc"),
    ],
)
def test_broken_hoc(tmp_path: Path, replaced: dict[str, str], message: str) -> None:
    write_package(tmp_path / "cell", **replaced)
    with pytest.raises(ValueError, match=rf"(?s)cell: hoc could not build the cell .*{message}"):
        read_nmc_package(tmp_path / "cell")


def test_time_limit(tmp_path: Path) -> None:
    write_package(tmp_path / "cell", template=TEMPLATE_HOC.replace("shape = new", "while (1) { }\n    shape = new"))
    with pytest.raises(ValueError, match="cell: hoc did not build the cell within 3 s"):
        read_nmc_package(tmp_path / "cell", time_limit_s=3)


def test_child_that_dies(tmp_path: Path) -> None:
    write_package(tmp_path / "cell", template="quit()\n" + TEMPLATE_HOC)
    with pytest.raises(ValueError, match="cell: the process that built the cell died"):
        read_nmc_package(tmp_path / "cell")


def test_values_that_a_model_cannot_hold(tmp_path: Path) -> None:
    text = BIOPHYSICS_HOC.replace("cm = 2\n", "for (x, 0) { cm(x) = 1 + x }\n")
    write_package(tmp_path / "cell", biophysics=text)
    with pytest.raises(ValueError, match=r"cell: cm of section dend_\d differs from segment to segment"):
        read_nmc_package(tmp_path / "cell")
