"""Checkpoints of improved-diffusion and guided-diffusion."""
