"""The door to the clocks: a descriptor that is readable when a time has come, or when somebody has set the clock.

timerfd_create(2) with TFD_TIMER_CANCEL_ON_SET: no polling. Python has it from 3.13 on, so it is called by ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

_ABSTIME, _CANCEL_ON_SET = 1, 2
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC
_ITIMERSPEC = struct.Struct("@llll")
FAR = 30 * 86_400.0
"""Seconds that a timer waits without a time to wait for; it is there to notice a clock that is set."""


class WallTimer:
    """One timer of CLOCK_REALTIME. Raises OSError when the kernel gives none."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(time.CLOCK_REALTIME, _FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def arm(self, due: float | None) -> bool:
        """Be readable at unix time ``due``, or when the clock is set. False: it was set meanwhile, so look again."""
        wall = time.time()
        at = wall + FAR if due is None else min(due, wall + FAR)
        whole = int(at)
        spec = _ITIMERSPEC.pack(0, 0, whole, max(1, int((at - whole) * 1e9)))
        if self._libc.timerfd_settime(self.fd, _ABSTIME | _CANCEL_ON_SET, spec, None) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.ECANCELED:
            return False
        raise OSError(code, "timerfd_settime")

    def clear(self) -> None:
        """Take note of what made it readable."""
        try:
            os.read(self.fd, 8)
        except OSError:
            pass  # ECANCELED: the clock was set; EAGAIN: nothing has happened

    def close(self) -> None:
        """No more timer."""
        os.close(self.fd)


def wall() -> float:
    """Unix seconds, as somebody has set them."""
    return time.time()


def steady() -> float:
    """Seconds since boot, those of sleep included: nobody sets them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def show(instant: float) -> str:
    """A time for people, in the machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(instant))
