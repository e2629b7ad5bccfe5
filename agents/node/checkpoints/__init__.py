"""What jobs write to their checkpoint folders: seeing what is whole, and holding it while it is copied."""
