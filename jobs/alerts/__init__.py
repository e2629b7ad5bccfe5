"""Alerts: what is worth telling people, when it begins and when it is over. Pure."""
