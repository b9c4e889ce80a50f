"""edge-agent keeps every service of a small device inside one memory and CPU budget."""

__version__ = "0.1.0"
