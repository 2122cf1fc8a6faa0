"""compressor: distil, prune, quantize, export and measure Transformer checkpoints."""

__version__ = "0.1.0"
