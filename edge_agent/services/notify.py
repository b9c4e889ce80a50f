"""Readiness and liveness datagrams, sd_notify(3), and whether the starter wants them, sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which WATCHDOG=1 is expected of this process; None: it is not."""
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(text) / 1_000_000


class Notifier:
    """Sends to NOTIFY_SOCKET; does nothing when the starter did not ask for it."""

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        if address and address[0] in "/@":
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, *assignments: str) -> None:
        """Send e.g. 'READY=1'. A starter that is gone or does not read is not this service's failure."""
        if self._socket is not None:
            try:
                self._socket.sendto("\n".join(assignments).encode(), self._address)
            except OSError:
                pass

    def close(self) -> None:
        """No more messages."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def from_environment() -> Notifier:
    """The notifier the starter asked for. The variable is taken out of the environment, as sd_notify(3) advises."""
    return Notifier(os.environ.pop("NOTIFY_SOCKET", None))
