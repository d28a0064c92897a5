"""The figures that the README quotes: accuracy on layer-6 trials, time, memory, import."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import layer6, resources


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="neuron bank that holds layer-6 cells (names L6_...)")
    arguments = parser.parse_args(argv)
    layer6.main(["--bank", str(arguments.bank), "--output", "benchmarks/results/layer6.csv"])
    return resources.main([])


if __name__ == "__main__":
    sys.exit(main())
