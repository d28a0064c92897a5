"""Training of the sorter's networks on trials composed from neuron banks."""
