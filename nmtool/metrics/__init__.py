"""Numbers from a RunResult: synaptic operations, energy, robustness."""
