"""From real numbers to the chip's grid: scales, calibration, noise."""
