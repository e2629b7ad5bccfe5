"""The fabric: how the controller reaches the nodes. Ray (`ray.py`), or this process (`local.py`)."""
