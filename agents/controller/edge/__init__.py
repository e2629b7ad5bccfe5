"""Hosts that are reached by ssh alone, and the loop that brings releases to them."""
