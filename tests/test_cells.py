from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from spikeinterface_simsort.simulation.cell_models import CellModel, Section, me_type, part_of_cell
from spikeinterface_simsort.simulation.cells import cell_name, iterate_cells, parse_netpyne, read_cells


def section_json(*, parent: str | None = None, **geometry: Any) -> dict[str, Any]:
    topology = {} if parent is None else {"parentSec": parent, "parentX": 0.5, "childX": 0.0}
    return {
        "geom": {"L": 20.0, "diam": 10.0, "Ra": 100.0, "cm": 1.0} | geometry,
        "topol": topology,
        "mechs": {"pas": {"g": 3e-5, "e": -75.0}, "Ih": {"gIhbar": [1e-5, 2e-5]}},
        "ions": {"k": {"e": -85.0, "i": 54.4, "o": 2.5}},
    }


def cell_json(**sections: dict[str, Any]) -> str:
    points = [[0.0, 0.0, 0.0, 2.0], [0.0, 50.0, 0.0, 1.0]]
    both = {"soma": section_json(), "dend_0": section_json(parent="soma", nseg=3, cm=2.0, pt3d=points)}
    return json.dumps({"secs": both | sections, "conds": {}})


def section(name: str, *, parent: str | None = None) -> Section:
    return Section(name=name, length=10.0, diam=2.0, parent=parent, mechanisms={}, ions={})


def archive_of(path: Path, files: dict[str, str], *, mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode("utf-8")))
    return path


def test_sections_of_a_cell():
    cell = parse_netpyne(cell_json(), name="L5_BC_1")
    assert cell.name == "L5_BC_1"
    soma, dendrite = cell.sections
    assert (soma.length, soma.diam, soma.num_segments, soma.points, soma.parent) == (20.0, 10.0, 1, (), None)
    assert (dendrite.parent, dendrite.parent_x, dendrite.child_x) == ("soma", 0.5, 0.0)
    assert dendrite.num_segments == 3 and dendrite.capacitance == 2.0
    assert dendrite.points == ((0.0, 0.0, 0.0, 2.0), (0.0, 50.0, 0.0, 1.0))
    assert dendrite.mechanisms["Ih"]["gIhbar"] == [1e-5, 2e-5]
    assert dendrite.ions["k"] == {"e": -85.0, "i": 54.4, "o": 2.5}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"sections": {}}', '{"secs": [1]}', b"\xff\xfe\x00"])
def test_text_that_is_no_cell(text):
    with pytest.raises(ValueError, match="L5_BC_1 is not a cell in NetPyNE's JSON"):
        parse_netpyne(text, name="L5_BC_1")


@pytest.mark.parametrize(
    "broken",
    [
        {"topol": {}},
        section_json(L="long"),
        section_json(Ra=None),
        section_json(nseg="many"),
        section_json(pt3d=[[0.0, 0.0, 0.0]]),
        section_json(pt3d=7),
    ],
)
def test_section_that_cannot_be_read(broken):
    with pytest.raises(ValueError, match=r"Section dend_1 of L5_BC_1 cannot be read"):
        parse_netpyne(cell_json(dend_1=broken), name="L5_BC_1")


def test_tree_is_checked():
    soma, dendrite = section("soma"), section("dend_0", parent="soma")
    CellModel("good", (dendrite, soma))
    with pytest.raises(ValueError, match="two sections have the same name"):
        CellModel("bad", (soma, dendrite, dendrite))
    with pytest.raises(ValueError, match="one section without a parent, not 2"):
        CellModel("bad", (soma, section("dend_0")))
    with pytest.raises(ValueError, match="not 0"):
        CellModel("bad", (section("soma", parent="dend_0"), dendrite))
    with pytest.raises(ValueError, match=r"attached to \['dend_7'\], which do not exist"):
        CellModel("bad", (soma, section("dend_0", parent="dend_7")))
    with pytest.raises(ValueError, match="bad has no soma"):
        CellModel("bad", (section("dend_0"),))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("soma", "soma"),
        ("soma_0", "soma"),
        ("axon_1", "axon"),
        ("axon[0]", "axon"),
        ("myelin_0", "axon"),
        ("dend_12", "dend"),
        ("apic[3]", "dend"),
    ],
)
def test_parts_of_a_cell(name, part):
    assert part_of_cell(name) == part


def test_names():
    assert me_type("L5_TTPC1_cADpyr232_1") == "L5_TTPC1_cADpyr232"
    assert me_type("L23_NBC_dNAC222_12") == "L23_NBC_dNAC222"
    # Without a clone's number there is nothing to take off.
    assert me_type("L23_NBC_dNAC222") == "L23_NBC_dNAC222"
    assert me_type("7") == "7" and me_type("_7") == "_7"
    assert cell_name("a/b/L5_BC_1_cellParams.json") == "L5_BC_1"
    assert cell_name("a\\b\\L5_BC_1.json") == "L5_BC_1"


def test_file_and_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "L2_B_1.json").write_text(cell_json(), encoding="utf-8")
    (tmp_path / "L1_A_1_cellParams.json").write_text(cell_json(), encoding="utf-8")
    (tmp_path / "README.txt").write_text("no cell", encoding="utf-8")
    assert {cell.name for cell in read_cells(tmp_path)} == {"L1_A_1", "L2_B_1"}
    assert [cell.name for cell in read_cells(tmp_path / "deep" / "L2_B_1.json")] == ["L2_B_1"]
    assert [cell.name for cell in read_cells(tmp_path, names=["L1_A_1"])] == ["L1_A_1"]
    with pytest.raises(ValueError, match=r"does not hold the cells \['L9_Z_1'\]"):
        read_cells(tmp_path, names=["L1_A_1", "L9_Z_1"])


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w"])
def test_archive(tmp_path, mode):
    files = {"cells/L1_A_1_cellParams.json": cell_json(), "README.md": "no cell", "L2_B_1.json": cell_json()}
    path = archive_of(tmp_path / "cells.tar", files, mode=mode)
    assert [cell.name for cell in read_cells(path)] == ["L1_A_1", "L2_B_1"]
    assert [cell.name for cell in read_cells(path, names=["L2_B_1"])] == ["L2_B_1"]


def test_archive_is_read_one_cell_at_a_time(tmp_path):
    path = archive_of(tmp_path / "cells.tar.xz", {"L1_A_1.json": cell_json(), "L2_B_1.json": cell_json()})
    asked = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return True

    cells = iterate_cells(path, wanted=wanted)
    assert next(cells)[0] == "L1_A_1" and asked == ["L1_A_1"]
    assert next(cells)[0] == "L2_B_1" and asked == ["L1_A_1", "L2_B_1"]


def test_cells_that_are_not_wanted_are_not_read(tmp_path):
    path = archive_of(tmp_path / "cells.tar.xz", {"L1_A_1.json": "broken", "L2_B_1.json": cell_json()})
    assert [name for name, _ in iterate_cells(path, wanted=lambda name: name == "L2_B_1")] == ["L2_B_1"]


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_broken_cell_does_not_stop_the_others(tmp_path, kind):
    files = {"L1_A_1.json": cell_json(), "L2_B_1.json": "broken", "L3_C_1.json": cell_json()}
    if kind == "archive":
        path = archive_of(tmp_path / "cells.tar.xz", files)
    else:
        path = tmp_path
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
    found = dict(iterate_cells(path))
    assert list(found) == ["L1_A_1", "L2_B_1", "L3_C_1"]
    assert isinstance(found["L2_B_1"], ValueError) and "L2_B_1" in str(found["L2_B_1"])
    assert isinstance(found["L3_C_1"], CellModel)
    with pytest.raises(ValueError, match="L2_B_1 is not a cell"):
        read_cells(path)


def test_link_in_an_archive(tmp_path):
    path = archive_of(tmp_path / "cells.tar", {"L1_A_1.json": cell_json()}, mode="w")
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("L2_B_1.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    # A link is not followed.
    assert [name for name, _ in iterate_cells(path)] == ["L1_A_1"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        read_cells(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no cells in"):
        read_cells(tmp_path)
    with pytest.raises(FileNotFoundError, match="no cells in"):
        read_cells(archive_of(tmp_path / "cells.tar.xz", {"README.md": "no cell"}))
    other = tmp_path / "cells.txt"
    other.write_text("no cell", encoding="utf-8")
    with pytest.raises(ValueError, match="neither NetPyNE's JSON, nor a tar archive"):
        read_cells(other)


def test_cell_of_the_shared_archive(shared_data):
    name = "L6_SBC_bNAC219_1"
    (cell,) = read_cells(shared_data / "cells" / "nmc_cells.tar.xz", names=[name])
    assert cell.name == name
    assert {part_of_cell(section.name) for section in cell.sections} == {"soma", "axon", "dend"}
