"""Tests of the benchmark's own parts: what measures must not be wrong."""
