"""How training minimises, or what the weights must obey."""
