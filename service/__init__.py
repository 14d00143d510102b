"""The gRPC service: how a request becomes a job and a job becomes a stream."""

__version__ = "0.1.0"
