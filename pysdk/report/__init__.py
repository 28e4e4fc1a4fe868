"""Plotted reports on a plan, one command each: pysdk report."""
