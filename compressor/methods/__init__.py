"""The published methods, one file each, found by their file names."""
