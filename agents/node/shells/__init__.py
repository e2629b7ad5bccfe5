"""Programs beside a rank: a shell in its environment, for `qd exec` and `qd attach`."""
