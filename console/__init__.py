"""What a person touches: the `qd` command line, the terminal console, and the client both use."""
