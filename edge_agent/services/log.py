"""Plain lines on standard error; whoever started the service keeps them."""

from __future__ import annotations

import os


def log(name: str, text: str) -> None:
    """Write one line. A reader that is gone must not end the service: the agent may be restarted beside it."""
    line = " ".join(text.splitlines())
    try:
        os.write(2, f"{name}: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
