"""Registries that earlier releases wrote, opened by this one.

`states/` holds one for each release, as a `kill -9` of everything left it.
"""
