"""What the console shows, worked out without Textual: snapshots in, lines of toned text out."""
