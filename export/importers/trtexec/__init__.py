"""Engines that TensorRT serialized for somebody else."""
