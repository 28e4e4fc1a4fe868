"""Lowering of networks to engines."""
