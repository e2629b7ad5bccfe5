"""Widgets that draw lines. They hold a cursor and a scroll position, and no knowledge of jobs."""
