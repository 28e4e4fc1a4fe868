"""Chains and rows of solvers, step by step."""
