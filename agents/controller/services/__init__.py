"""Services in motion: releases as jobs, the front before them, and rollouts that go on or come back."""
