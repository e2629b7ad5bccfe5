"""The controller: API, reconciler, stores, and the one Ray driver. It lives on the head node."""
