"""Hosts at the edge: fleets, and how a version of a model gets to them over ssh, wave by wave. Pure."""
