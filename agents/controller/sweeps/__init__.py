"""Sweeps in motion: studies, their storage, trials as jobs."""
