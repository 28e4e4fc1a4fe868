"""Running chains, on the CPU or a CUDA device: batches, previews, deadlines."""
