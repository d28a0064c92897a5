"""Biophysical ground truth for spike sorting: neuron banks, extracellular potentials, tetrode trials."""
