"""The console in a browser: Textual's own server, for the person who started it alone."""
