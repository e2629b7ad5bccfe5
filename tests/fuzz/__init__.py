"""A fuzzer that nobody here wrote, against the API: `make test-api`."""
