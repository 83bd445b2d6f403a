"""Integer arithmetic of the chip, one formula per function. NumPy is the oracle."""
