"""The work folder of a submission: what git says of it, and which files travel."""
