"""Graphs and networks for the compiler of the native engine."""
