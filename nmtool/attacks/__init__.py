"""Attacks on a model, and checks of whether their result can be believed."""
