"""The `qd` command line: one file per noun, each imported only when it is used."""

import gc

# A command imports a few hundred modules and ends. Collecting while it does finds next to nothing,
# and takes a tenth of the time that a person waits for the prompt.
gc.set_threshold(50_000)
