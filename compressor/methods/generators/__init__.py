"""New training rows out of a model."""
