"""Gathers what every service of this node and the agent measure, and shows it to Prometheus.

    GET /metrics        the page, as Prometheus' text or, if asked for by Accept, as OpenMetrics
    GET /-/healthy      200 while the service runs
    gathered {}         -> {page: bytes}, on the local socket, for ``telemetry_text.unpack_page``

Nobody is asked between two scrapes. A page is good for FRESH seconds, and scrapes that come while one is made get that
one, so many watchers cost the agent no more than one.
"""

from __future__ import annotations

import os

from .metrics import Metric, counter, gauge
from .runtime import Service
from .telemetry_gather import Gather
from .telemetry_http import Ask, Http, answer, refusal
from .telemetry_text import Page, chosen, pack_page, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

FRESH = 1.0  # seconds
MOST_WAITING = 64  # who waits for one page


class Telemetry(Service):
    """The service."""

    name = "telemetry"
    request_limit = 4096

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._runtime: Runtime
        self._gather: Gather
        self._http: Http | None = None
        self._page = Page()
        self._forms: dict[str, bytes] = {}
        self._made = -FRESH  # monotonic seconds
        self._began = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._scrapes = self._gatherings = 0
        self._took = 0.0  # seconds, in all

    def open(self, runtime: Runtime) -> None:
        """Listen. Raises StartError."""
        options = self.options
        self._runtime = runtime
        self._gather = Gather(runtime, self.name, os.path.dirname(options.run_dir), options.status)
        self._http = Http(options.http.address, options.http.port, self._asked, runtime.now)
        runtime.watch(self._http.fd, self._http.ready)

    def close(self) -> None:
        """No more scrapes."""
        if self._http is not None:
            self._runtime.forget(self._http.fd)
            self._http.close()
            self._gather.close()

    def operations(self) -> Mapping[str, Operation]:
        """gathered."""
        return {"gathered": self._gathered}

    def details(self) -> Message:
        """Where it listens, and how often it was asked."""
        port = self._http.port if self._http else 0
        return {"address": self.options.http.address, "port": port, "scrapes": self._scrapes}

    def metrics(self) -> Sequence[Metric]:
        """Its own work."""
        cut, refused = (self._http.cut, self._http.refused) if self._http else (0, 0)
        return (
            counter("telemetry_scrapes_total", "Pages that were sent to somebody.", self._scrapes),
            counter("telemetry_gatherings_total", "Times that everybody was asked.", self._gatherings),
            counter("telemetry_gathering_seconds_total", "Time until all had answered.", self._took),
            counter("telemetry_connections_cut_total", "HTTP clients that were too slow or too many.", cut),
            counter("telemetry_http_refused_total", "What came over HTTP and was no request.", refused),
            gauge("telemetry_page_samples", "Samples on the last page.", len(self._page)),
        )

    def deadline(self) -> float | None:
        """Of the slowest client, or of the answers that are awaited."""
        due = (self._gather.deadline(), self._http.deadline() if self._http else None)
        return min((each for each in due if each is not None), default=None)

    def tick(self, now: float) -> None:
        """It has come."""
        self._gather.tick(now)
        if self._http is not None:
            self._http.tick(now)

    # -- who asks

    def _asked(self, ask: Ask, reply: Callable[[bytes], None]) -> None:
        head = ask.method == "HEAD"
        if ask.path == "/metrics":
            form = chosen(ask.accept)

            def send() -> None:
                self._scrapes += 1
                reply(answer(200, form, self._text(form), head=head))

            self._when_fresh(send, lambda: reply(refusal(503)))
        elif ask.path == "/-/healthy":
            reply(answer(200, "text/plain", b"healthy\n", head=head))
        elif ask.path == "/":
            reply(answer(200, "text/plain", b"edge-agent telemetry: /metrics\n", head=head))
        else:
            reply(refusal(404))

    def _gathered(self, request: Request) -> None:
        self._when_fresh(lambda: request.reply({"page": pack_page(self._page)}), lambda: request.reply({"page": b""}))

    def _when_fresh(self, send: Callable[[], None], refuse: Callable[[], None]) -> None:
        now = self._runtime.now()
        if now - self._made < FRESH and not self._gather.running:
            send()
        elif len(self._waiting) >= MOST_WAITING:
            refuse()
        else:
            self._waiting.append(send)
            if not self._gather.running:
                self._began = now
                self._gather.begin(self._gathered_all)

    def _gathered_all(self, page: Page) -> None:
        self._page, self._forms, self._made = page, {}, self._runtime.now()
        self._gatherings += 1
        self._took += self._made - self._began
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            send()

    def _text(self, form: str) -> bytes:
        if form not in self._forms:
            self._forms[form] = render(self._page, form)
        return self._forms[form]
