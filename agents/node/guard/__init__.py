"""The guard of an attempt on one node. Standard library only: it outlives the rest of us."""
