"""Runs as experiments: choosing among them, and what two of them differ in. Pure."""
