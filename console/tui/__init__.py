"""The Textual console: screens, widgets, messages. It holds no domain logic."""
