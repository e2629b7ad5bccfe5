"""What the Sweeps screens show."""
