"""What speaks MLflow's protocol to the ranks of an attempt (docs/tracking.md)."""
