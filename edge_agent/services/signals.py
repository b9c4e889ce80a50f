"""SIGTERM and SIGINT as one readable descriptor, so that a poll loop without a timer notices them."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


class Stop:
    """Asked to stop? ``fd`` becomes readable at that moment and stays so."""

    def __init__(self) -> None:
        self.asked = False
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def close(self) -> None:
        """From now on the signals end the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._write)
