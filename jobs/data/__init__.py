"""Data sets: what their versions are called, and what people expect of them. Pure."""
