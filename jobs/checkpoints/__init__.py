"""Checkpoints as scripts write them: which are whole, which step they are of, and which are copied."""
