"""The deployments screen: services, their versions and rollouts, and what steers them."""
