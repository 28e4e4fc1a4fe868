"""One file a question: pytest benchmarks/ asks them all."""
