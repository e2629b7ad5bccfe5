"""Which job runs where, and why another one waits."""
