"""The pipelines screens: runs, the graph of one, its steps, and schedules."""
