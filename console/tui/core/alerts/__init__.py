"""The alerts screen: what needs a person, what it is about, and what is said to it."""
