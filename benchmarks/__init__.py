"""Latency of pysdk beside its peers; see docs/benchmarks.md."""
