"""Networks of the sorter: torch modules and nothing else, shared with training."""

from spikeinterface_simsort.models.detector import (
    PatchTransformerDetector,
    PeakPerceptronDetector,
    SampleTransformerDetector,
    build_detector,
)
from spikeinterface_simsort.models.embedder import PerceptronEmbedder, RecurrentEmbedder, build_embedder

__all__ = [
    "PatchTransformerDetector",
    "PeakPerceptronDetector",
    "PerceptronEmbedder",
    "RecurrentEmbedder",
    "SampleTransformerDetector",
    "build_detector",
    "build_embedder",
]
