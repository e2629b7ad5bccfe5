"""Pipelines that run: one engine for each, on top of jobs and sweeps."""
