"""What only a machine with an NVIDIA GPU can show (`make test-gpu`). Without one, it is skipped."""
