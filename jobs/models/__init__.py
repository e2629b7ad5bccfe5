"""Models and their versions: what they are called, what they hold, and what may be done with them."""
