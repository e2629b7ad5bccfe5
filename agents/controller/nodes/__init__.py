"""The ways to the nodes: fabric, links, membership."""
