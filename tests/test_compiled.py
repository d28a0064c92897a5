"""Compiled loops: they say what the same loops say uncompiled, also where nothing can be kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeinterface_simsort import compiled as module
from spikeinterface_simsort import search_kernels
from spikeinterface_simsort.compiled import compiled

NUM_SAMPLES, NUM_LAGS, FIRST_LAG = 48, 110, -60


def spike(time: float, template: int, amplitude: float = 1.0) -> np.ndarray:
    return np.array([time, template, amplitude, 0.0, 0.0])


def scores(*spikes: tuple[float, int], seed: int = 0) -> dict:
    """Scores of two templates in noise, with spikes of them added."""
    rng = np.random.default_rng(seed)
    echo = np.zeros((2, len(search_kernels.SHIFTS), 2, NUM_LAGS), dtype="float32")
    lags = np.arange(NUM_LAGS) + FIRST_LAG
    for one in range(2):
        for index, shift in enumerate(search_kernels.SHIFTS):
            for other in range(2):
                alike = 1.0 if one == other else 0.3
                echo[one, index, other] = 150.0 * alike * np.exp(-0.5 * ((lags - shift) / 3.0) ** 2)
    score = rng.normal(0.0, 8.0, size=(2, 3000)).astype("float32")
    energy, penalty = np.full(2, 150.0, dtype="float32"), np.zeros(3000, dtype="float32")
    for time, template in spikes:
        search_kernels._subtract(spike(time, template), -1.0, score, penalty, energy, echo, FIRST_LAG, NUM_SAMPLES)
    return {
        "score": score,
        "energy": energy,
        "precision": np.full(2, 30.0, dtype="float32"),
        "echo": echo,
        "first_lag": FIRST_LAG,
        "num_samples": NUM_SAMPLES,
        "refractory": 10,
        "log_prior": float(np.log(5.0 / 20000.0)),
    }


def test_spikes_that_overlap_are_found() -> None:
    true = [(300.2, 0), (308.0, 1), (900.0, 1), (1500.4, 0), (1540.0, 0)]
    found = search_kernels.search(*scores(*true).values())
    found = found[np.argsort(found[:, search_kernels.TIME])]
    np.testing.assert_allclose(found[:, search_kernels.TIME], [time for time, _ in true], atol=0.6)
    assert found[:, search_kernels.TEMPLATE].astype(int).tolist() == [template for _, template in true]
    assert np.all(found[:, search_kernels.LOG_ODDS] > 0)


def test_what_is_left_is_noise() -> None:
    given = scores((300.0, 0), (900.0, 1))
    search_kernels.search(*given.values())
    assert np.abs(given["score"]).max() < 60.0


def test_more_spikes_than_there_is_room_for_at_first() -> None:
    times = np.arange(30, 2970, 31)
    found = search_kernels.search(*scores(*[(float(time), 0) for time in times]).values())
    assert len(found) == len(times)


def test_compiled_and_uncompiled_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    true = [(300.2, 0), (308.0, 1), (320.0, 0), (900.0, 1)]
    whole = search_kernels.search(*scores(*true).values())
    for name, function in vars(search_kernels).copy().items():
        if hasattr(function, "py_func"):
            monkeypatch.setattr(search_kernels, name, function.py_func)
    np.testing.assert_allclose(search_kernels.search(*scores(*true).values()), whole, rtol=1e-4)


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.numba.njit

    def njit(function, *, cache: bool = False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(function, **options)

    monkeypatch.setattr(module.numba, "njit", njit)

    @compiled
    def double(value: float) -> float:
        return 2.0 * value

    assert double(4.0) == 8.0


def test_the_next_process_finds_what_was_compiled(tmp_path: Path) -> None:
    script = (
        "import numpy as np; from spikeinterface_simsort import search_kernels as kernels;"
        "kernels._forbid(np.zeros(5), np.zeros((2, 9), 'float32'), 3);"
        "print(sum(kernels._forbid.stats.cache_hits.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    hits = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for _ in range(2)
    ]
    assert [int(hit) for hit in hits] == [0, 1]
