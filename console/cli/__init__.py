"""The `qd` command line: one file per noun, each imported only when it is used."""
