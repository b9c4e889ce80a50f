"""Compares edge-agent with other supervisors on this machine. Standard library only; see README.md."""
