"""Files: whole or not written at all, and read only after their kind and size are known."""
