"""Exports as files: the folder that an image is built from, what pins it, and the programs that build it."""
