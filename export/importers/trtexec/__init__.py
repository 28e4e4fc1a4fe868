"""TensorRT engines that others serialized."""
