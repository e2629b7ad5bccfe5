"""What a person gets who installs a wheel: `make test-packages`."""
