"""A job's life: events in, states and effects out; deadlines, stalls and endings."""
