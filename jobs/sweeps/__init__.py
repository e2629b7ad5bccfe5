"""Sweeps: search spaces, strategies, populations, and the engine's decisions."""
