"""Engines: what runs a plan's network, a module or folder each; contract.py says what they offer."""
