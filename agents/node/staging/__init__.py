"""Everything an attempt needs before its ranks start: files, environment, GPUs, ports."""
