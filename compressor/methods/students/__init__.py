"""Where a smaller model comes from."""
