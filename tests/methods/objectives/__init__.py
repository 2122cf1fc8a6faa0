"""Tests of the objectives; a student and an objective may share a name."""
