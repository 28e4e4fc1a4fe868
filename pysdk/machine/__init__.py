"""What this machine gives a process: memory, processors, CUDA devices, Ctrl-C, the state of its floating point."""
