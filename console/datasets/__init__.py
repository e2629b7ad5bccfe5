"""Data sets on a person's disk: reading what a version is made of, looking into tables, checking them."""
