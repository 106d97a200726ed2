"""The sidejudge sidecar: judges agents' work over gRPC and improves from corrections."""

__all__ = ["__version__"]

__version__ = "0.1.0"
