from __future__ import annotations

import pytest
import torch

from spikeinterface_simsort.models import PeakPerceptronDetector, build_detector


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return build_detector(architecture="peak_perceptron", hidden_size=16, num_layers=2, window_samples=512).eval()


def traces_with_peaks(*samples: int, num_samples: int = 512) -> torch.Tensor:
    traces = torch.zeros(1, num_samples, 4)
    for sample in samples:
        traces[0, sample - 1 : sample + 2, 1] = torch.tensor([-2.0, -6.0, -3.0])
    return traces


def test_it_looks_at_peaks_of_the_energy_alone(detector):
    assert isinstance(detector, PeakPerceptronDetector)
    with torch.inference_mode():
        logits = detector(traces_with_peaks(100, 300))
    assert logits.shape == (1, 512)
    is_looked_at = logits[0] > logits.min()
    assert is_looked_at.nonzero().flatten().tolist() == [100, 300]
    # Elsewhere no threshold that can be asked for is passed.
    assert float(torch.sigmoid(logits.min())) < 0.01


def test_where_nothing_rises_out_of_the_noise_there_is_no_spike(detector):
    logits = detector(0.5 * torch.sin(torch.arange(512.0))[None, :, None].expand(2, 512, 4))
    assert logits.shape == (2, 512) and torch.all(logits == logits[0, 0])


def test_a_spike_is_as_likely_wherever_it_is(detector):
    with torch.inference_mode():
        one, other = detector(traces_with_peaks(100)), detector(traces_with_peaks(321))
    assert float(one[0, 100]) == pytest.approx(float(other[0, 321]), abs=1e-5)


def test_what_is_farther_away_than_it_sees_has_no_say(detector):
    reach = max(detector.num_before, detector.num_samples - detector.num_before) + 2
    with torch.inference_mode():
        alone, near, far = (
            float(detector(traces_with_peaks(200, *others))[0, 200]) for others in ((), (210,), (200 + reach,))
        )
    assert far == pytest.approx(alone, abs=1e-5) and near != pytest.approx(alone, abs=1e-3)


def test_it_learns_where_it_looks(detector):
    detector.zero_grad()
    detector(traces_with_peaks(100))[0, 100].backward()
    assert all(torch.any(parameter.grad != 0) for parameter in detector.perceptron[-1].parameters())


def test_channels_that_are_absent_are_zero(detector):
    traces = traces_with_peaks(100)
    traces[..., 2:] = 0.0
    assert int((detector(traces)[0] > -11.0).sum()) == 1
