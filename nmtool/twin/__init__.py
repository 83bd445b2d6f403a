"""The compiled integer network as a differentiable torch module."""
