"""Features: what a versioned transform declares of itself, and what its versions are called. Pure."""
