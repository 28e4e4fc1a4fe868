"""Compiled inference of diffusion models."""
