"""The models screen: versions, what is known of one, and what is said of it."""
