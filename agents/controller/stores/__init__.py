"""What the controller keeps on disk, and how it is read, searched and pruned."""
