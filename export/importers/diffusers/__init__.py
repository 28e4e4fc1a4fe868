"""Pipelines and networks that diffusers saved."""
