"""The bundled services, each a process of its own: ``python -m edge_agent.services NAME``."""
