"""Differentiable torch copies of a network: the compiled one with an exact forward, and the float graph."""
