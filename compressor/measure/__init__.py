"""Accuracy, latency, size and reports; arrays and callables in, plain data out."""
