"""What the Cluster screen shows."""
