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
_TIMEX = 512  # bytes: struct timex has at most 208
_TIME_ERROR = 5
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


def doubt(floor: float) -> str:
    """Why the wall clock is not believed; '' where it is. ``floor``: unix seconds that have certainly passed.

    It is believed when a time server keeps it (adjtimex(2) does not say TIME_ERROR), or when it was set at boot from a
    real-time clock (sysfs-class-rtc: hctosys), unless it is behind ``floor``, as with a battery that is empty.
    """
    if time.time() < floor:
        return "the clock of this machine is behind a time that has certainly passed"
    status = ctypes.create_string_buffer(_TIMEX)  # modes = 0: only asks
    if ctypes.CDLL(None).adjtimex(status) not in (-1, _TIME_ERROR) or any(map(_has_set_clock, _clocks())):
        return ""
    return "nothing has set the clock of this machine: it has no time server and no real-time clock"


def boot() -> str:
    """The id of this boot of this machine, proc_sys_kernel(5); '' when it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _clocks() -> list[str]:
    try:
        return os.listdir("/sys/class/rtc")
    except OSError:
        return []


def _has_set_clock(name: str) -> bool:
    try:
        with open(f"/sys/class/rtc/{name}/hctosys", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False
