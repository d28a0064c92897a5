"""The wheel: what is in it, and that it works where the checkout is not."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import spikeinterface_simsort

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None

CHECKOUT = Path(__file__).resolve().parents[1]
NOT_SOURCE = (".*", "build", "dist", "runs", "demo_output", "*.egg-info", "__pycache__")

# Run by the fresh environment's interpreter.
_USE_THE_WHEEL = """
import importlib, json, pkgutil
import spikeinterface_simsort as package
from spikeinterface_simsort.simulation.trials import bundled_bank
from spikeinterface_simsort.training.run import load_config
from spikeinterface_simsort.weights import load_weights

def fail(name):
    raise ImportError(name)

names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=fail)]
modules = [importlib.import_module(name) for name in names if not name.endswith(".__main__")]
load_config("default"), load_config("paper")
print(json.dumps({
    "files": [module.__file__ for module in (package, *modules)],
    "names": names,
    "version": package.__version__,
    "weights": load_weights().config["name"],
    "num_cells": len(bundled_bank()),
}))
"""


def run(*command, cwd, **environment):
    """Run a command as from a new terminal: neither the checkout nor its environment's scripts are in the way."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the checkout: leftovers in build/ would get into it, and the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CHECKOUT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist"]
    run(*build, folder / "source", cwd=folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def fresh_bin(wheel, tmp_path_factory):
    """Scripts of a new environment with the wheel, and with everything else that this one has."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    fresh_bin = folder / ("Scripts" if os.name == "nt" else "bin")
    fresh_python = fresh_bin / Path(sys.executable).name
    purelib = run(fresh_python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent)
    pip = [sys.executable, "-m", "pip", "--python", fresh_python, "install", "--no-deps", "--no-index", wheel]
    run(*pip, cwd=folder.parent)
    # A path in a .pth file comes after the folder that the file is in, and the .pth files over there are not read:
    # an editable install is not followed.
    site_packages = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (Path(purelib.strip()) / "others.pth").write_text("\n".join(site_packages) + "\n", encoding="utf8")
    return fresh_bin


@pytest.mark.slow
def test_contents_of_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    others = set(names) - metadata
    assert {name.split("/")[0] for name in others} == {"spikeinterface_simsort"}
    assert not any(set(name.split("/")) & {"benchmarks", "tests", "__pycache__"} for name in others)
    for name in (
        "assets/neuron_bank.npz",
        "assets/weights/config.json",
        "assets/weights/README.md",
        "assets/weights/detector.safetensors",
        "assets/weights/embedder.safetensors",
        "simulation/trials.py",
        "training/__main__.py",
        "training/configs/default.yaml",
        "training/configs/paper.yaml",
    ):
        assert f"spikeinterface_simsort/{name}" in others
    assert any(name.endswith("LICENSE") for name in metadata)


@pytest.mark.slow
def test_wheel_holds_every_module(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, prefix in (("spikeinterface_simsort", ""), ("simulation", "simulation/"), ("training", "training/")):
        for path in (CHECKOUT / folder).rglob("*.py"):
            name = path.relative_to(CHECKOUT / folder).as_posix()
            assert f"spikeinterface_simsort/{prefix}{name}" in names


@pytest.mark.slow
def test_wheel_has_a_long_description(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        _, _, description = archive.read(name).decode("utf8").partition("\n\n")
    assert description.strip()


@pytest.mark.slow
def test_wheel_works_without_the_checkout(fresh_bin, tmp_path):
    found = json.loads(run(fresh_bin / "python", "-c", _USE_THE_WHEEL, cwd=tmp_path).splitlines()[-1])
    fresh = fresh_bin.parent.resolve()
    assert all(Path(file).resolve().is_relative_to(fresh) for file in found["files"])
    assert {f"spikeinterface_simsort.{name}" for name in ("simulation.bank", "training.run")} <= set(found["names"])
    assert found["version"] == spikeinterface_simsort.__version__
    assert found["weights"] == "simsort-default" and found["num_cells"] > 10


@pytest.mark.slow
def test_commands_of_the_wheel(fresh_bin, tmp_path):
    assert "usage: simsort" in run(fresh_bin / "simsort", "--help", cwd=tmp_path)
    module = [fresh_bin / "python", "-m", "spikeinterface_simsort.training"]
    assert "--bank" in run(*module, "--help", cwd=tmp_path)


@pytest.mark.skipif(tomllib is None, reason="Python 3.10 reads no TOML")
def test_one_version():
    with open(CHECKOUT / "pyproject.toml", "rb") as file:
        content = tomllib.load(file)
    attribute = "spikeinterface_simsort._version.__version__"
    assert content["project"]["dynamic"] == ["version"]
    assert content["tool"]["setuptools"]["dynamic"]["version"] == {"attr": attribute}
    from spikeinterface_simsort._version import __version__

    assert __version__ == spikeinterface_simsort.__version__


def test_assets_are_small():
    assets = CHECKOUT / "spikeinterface_simsort" / "assets"
    assert sum(path.stat().st_size for path in assets.rglob("*") if path.is_file()) < 20e6
