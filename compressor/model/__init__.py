"""Between a checkpoint folder and a torch module."""
