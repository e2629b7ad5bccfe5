"""Pipelines: what people write, what depends on what, and what happens next. Pure."""
