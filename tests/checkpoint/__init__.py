"""Tests of compressor/checkpoint."""
