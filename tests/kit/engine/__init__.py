"""Programs of the native engine, and what changes them at random."""
