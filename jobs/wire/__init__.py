"""What travels: views for the API, and messages between controller and agents."""
