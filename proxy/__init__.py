"""Backpressure: an HTTP reverse proxy that tells AI agents the truth about capacity."""

__version__ = "0.1.0"
