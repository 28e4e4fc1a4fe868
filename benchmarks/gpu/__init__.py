"""Chains on a GPU beside those of torch and diffusers: `make gpu-benchmark`. Needs a device and a torch for CUDA."""
