"""The reconciler and what it keeps in memory: makes the cluster match the database."""
