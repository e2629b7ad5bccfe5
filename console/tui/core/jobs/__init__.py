"""What the Jobs and Job screens show."""
