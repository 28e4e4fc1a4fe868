"""What the native code does, in torch."""
