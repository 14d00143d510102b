"""The way in through TorchServe: its handler, which runs what the worker runs."""
