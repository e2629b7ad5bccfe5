"""A seeded simulation: the real controller on a virtual clock, against modelled nodes that fail.

One integer decides everything that happens in a history, so the same seed gives the same history.
See `python -m tests.sim --help`.
"""
