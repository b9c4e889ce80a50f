"""Steady requests, open loop: ``python3 -S client.py RATE`` writes 'DUE LATENCY' lines, seconds, latency -1: failed.

A request is due at its time whatever became of those before, and its latency counts from then. The client is above all
of them: real-time priority, its memory locked, so that what it sees is the service and not itself.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
import time
from pathlib import Path

from .load import PORT

TIMEOUT = 5.0  # seconds until a request has failed
MCL_CURRENT, MCL_FUTURE = 1, 2


class Request:
    """One connection."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.sent = False
        self.socket.connect_ex(("127.0.0.1", PORT))

    def ready(self) -> str:
        """Go on; '' not done, 'ok' or 'failed'."""
        try:
            if not self.sent:
                self.socket.send(b"GET / HTTP/1.0\r\n\r\n")
                self.sent = True
                return ""
            return "ok" if self.socket.recv(1024).endswith(b"ok") else "failed"
        except BlockingIOError:
            return ""
        except OSError:
            return "failed"


def main(rate: float) -> None:
    """Until it is killed."""
    lock_and_raise()
    poll = select.epoll()
    open_requests: dict[int, Request] = {}
    due = time.monotonic() + 0.1
    while True:
        timeout = max(0.0, due - time.monotonic())
        for fd, _ in poll.poll(timeout):
            request = open_requests[fd]
            outcome = request.ready()
            if outcome:
                report(request, time.monotonic() - request.due if outcome == "ok" else -1.0)
                del open_requests[fd]
                request.socket.close()
            elif request.sent:
                poll.modify(fd, select.EPOLLIN)
        now = time.monotonic()
        while due <= now:
            request = Request(due)
            open_requests[request.socket.fileno()] = request
            poll.register(request.socket, select.EPOLLOUT)
            due += 1 / rate
        for fd, request in list(open_requests.items()):
            if now - request.due > TIMEOUT:
                report(request, -1.0)
                del open_requests[fd]
                request.socket.close()


def report(request: Request, latency: float) -> None:
    """One line, at once."""
    os.write(1, f"{request.due:.4f} {latency:.5f}\n".encode())


def lock_and_raise() -> None:
    """mlockall(2), sched_setscheduler(2), and never the victim of the kernel (proc_pid_oom_score_adj(5))."""
    ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_FUTURE)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    Path("/proc/self/oom_score_adj").write_text("-1000")


if __name__ == "__main__":
    main(float(sys.argv[1]))
