"""Keeps the embedded cluster of one machine alive: Ray's head and the controller (`qd up`)."""
