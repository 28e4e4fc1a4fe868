"""Running chains on a processor or a device: memory, deadlines, interrupts, batches."""
