"""Data sets, encoders, event recordings."""
