"""Chains on devices, real and simulated, and a stand-in for TensorRT."""
