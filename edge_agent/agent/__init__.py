"""The resident process: the only room where the pure core meets the machine."""

from .start import main

__all__ = ["main"]
