"""Training of robust spiking networks from a recipe."""
