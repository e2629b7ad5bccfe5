"""Alerts: looking at what is wrong, and telling the people who asked to be told."""
