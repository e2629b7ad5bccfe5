"""What attempts leave on their node: finding it, counting it, and keeping it for a while."""
