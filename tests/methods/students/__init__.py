"""Tests of the students; a student and an objective may share a name."""
