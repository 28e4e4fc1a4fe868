"""TensorRT engines, which need no GPU to be built."""
