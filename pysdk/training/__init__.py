"""Trains the networks that `pysdk build` turns into engines. The only part of the SDK that imports torch."""
