"""What a rank sees of us: this folder is on its PYTHONPATH, so it holds only what ranks import."""
