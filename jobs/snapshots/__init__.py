"""A folder named by its content: manifest, packing, and what is ignored."""
