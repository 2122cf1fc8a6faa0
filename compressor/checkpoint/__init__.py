"""Bytes, JSON and hashes of checkpoint folders; never imports torch."""
