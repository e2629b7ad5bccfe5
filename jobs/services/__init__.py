"""Services: how a release gets its traffic, and when it loses it again. Pure."""
