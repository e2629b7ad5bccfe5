"""Keeps what runs on one machine alive: Ray, and on a head the controller (`qd up`, `qd join`)."""
