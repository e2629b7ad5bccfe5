"""What runs on every node: the NodeAgent, guards, GPU ledger, telemetry, caches."""
