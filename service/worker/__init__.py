"""The process that optimizes, and the wire between it and the server."""
