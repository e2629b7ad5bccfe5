"""The domain: specs, lifecycle, scheduling, registry. No Ray, no Textual, no sockets, no clock."""

__version__ = "0.1.0"
