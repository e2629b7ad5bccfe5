"""A disk that refuses the n-th call: a library to preload, and what is tried over it."""
