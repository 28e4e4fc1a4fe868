"""Two installed versions of pysdk beside each other, on the same plan: `python -m benchmarks.regression A B`."""
