"""What people write: job files, their fields, and errors that name file, line and field."""
