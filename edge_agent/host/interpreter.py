"""What runs a module of this program: the launcher of the Debian or rpm package, or this very interpreter.

The package's libraries are in a directory of their own that no interpreter looks into by itself; the launcher beside
them does (packaging/files/edge-agent). Obeys the resident import rule.
"""

from __future__ import annotations

import os
import sys

LAUNCHER = "edge-agent"


def interpreter(beside: str | None = None) -> str:
    """The program whose ``-m edge_agent`` and ``-m edge_agent.services`` are ours. ``beside``: our package's parent.

    Its path is the same for every release and every Python, so that a command line of a plan outlives both.
    """
    parent = beside or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    launcher = os.path.join(parent, LAUNCHER)
    return launcher if os.path.isfile(launcher) else sys.executable
