"""The default of neurofv beside what peers publish: `make bench-peers`."""
