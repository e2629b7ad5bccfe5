"""The data screen: data sets and their versions, what is in one, and what differs between two."""
