from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

from spikeinterface_simsort.mixture import fit_mixture, part_in_two


def draw(means: np.ndarray, counts: list[int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(means)), counts)
    return means[labels] + rng.standard_normal((len(labels), means.shape[1])), labels


def test_a_component_holds_spikes_of_one_cluster():
    means = 20.0 * np.eye(5)
    points, labels = draw(means, [300, 200, 500, 100, 250], seed=0)
    mixture = fit_mixture(points, num_components=15, variance=1.0, prior_weight=35.0, seed=0)
    found = mixture.predict(points)
    for component in np.unique(found):
        own = labels[found == component]
        assert len(np.unique(own)) == 1
        if len(own) >= 20:
            assert np.linalg.norm(mixture.means[component] - means[own[0]]) < 3.0


def test_it_is_the_mixture_of_scikit_learn():
    means = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 4.0, 1.0]])
    points, _ = draw(means, [400, 300, 200], seed=3)
    ours = fit_mixture(points, num_components=3, variance=1.5, prior_weight=33.0, seed=0, num_steps=500)
    theirs = BayesianGaussianMixture(
        n_components=3,
        covariance_prior=1.5 * 33.0 * np.eye(3),
        degrees_of_freedom_prior=33.0,
        mean_precision_prior=0.01,
        weight_concentration_prior=0.01,
        n_init=5,
        max_iter=500,
        tol=1e-6,
        random_state=0,
    ).fit(points)
    order, other = (np.lexsort(means.round().T) for means in (ours.means, theirs.means_))
    np.testing.assert_allclose(ours.means[order], theirs.means_[other], atol=0.05)
    assert adjusted_rand_score(ours.predict(points), theirs.predict(points)) > 0.98


def test_the_same_seed_gives_the_same_mixture():
    points, _ = draw(np.array([[0.0, 0.0], [5.0, 5.0]]), [100, 100], seed=0)
    first, second = (fit_mixture(points, num_components=6, variance=1.0, prior_weight=32.0, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.means, second.means)


def test_points_that_are_all_the_same():
    mixture = fit_mixture(np.ones((50, 3)), num_components=5, variance=1.0, prior_weight=33.0, seed=0)
    assert len(np.unique(mixture.predict(np.ones((50, 3))))) == 1


@pytest.mark.parametrize(("gap", "share"), [(6.0, 0.5), (5.0, 0.1), (4.0, 0.3)])
def test_two_gaussians_are_parted_between_them(gap, share):
    num = 2000
    points, labels = draw(
        np.array([[0.0] * 6, [gap, *[0.0] * 5]]), [round(num * (1 - share)), round(num * share)], seed=1
    )
    axis, threshold = part_in_two(points, seed=0)
    second = points @ axis > threshold
    assert max(np.mean(second == labels), np.mean(second != labels)) > 0.97
    theirs = GaussianMixture(
        n_components=2, covariance_type="tied", n_init=3, reg_covar=0.1, random_state=0
    ).fit_predict(points)
    assert adjusted_rand_score(theirs, second) > 0.95


def test_what_is_all_the_same_has_no_parts():
    axis, threshold = part_in_two(np.ones((40, 3)), seed=0)
    assert np.all(np.isfinite(axis)) and np.isfinite(threshold)
