"""Tests: they build the real thing, and talk to real servers from `tests.parts`."""
