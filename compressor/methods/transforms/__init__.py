"""One pass over a model, no training."""
