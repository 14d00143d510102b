"""What the service promises when things break: each proof runs at any size and returns its figures."""
