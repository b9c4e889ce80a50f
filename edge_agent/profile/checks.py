"""``health:`` how a service shows that it is ready and alive."""

from __future__ import annotations

import socket
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import model_validator

from . import readers
from .problems import ReadError
from .readers import Argv, Flag, Port, PositiveDuration, Reader
from .section import Section
from .tree import Leaf

KINDS = ("http", "tcp", "exec", "sd_notify")
_HOST_FIX = "write an IP address, or localhost; the agent never asks a name server"
_HTTP_FIX = "write http://127.0.0.1:8080/path"


def _host(value: object) -> str:
    written = readers.text(value)
    if written == "localhost":
        return "127.0.0.1"
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, written)
        except (OSError, ValueError):
            continue
        return written
    raise ReadError("not an IP address", _HOST_FIX)


def _url_path(value: object) -> str:
    path = readers.text(value)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ReadError("not the path of a URL", "start it with /, and percent-encode spaces")
    return path


Host = Annotated[str, Reader(_host)]


class Http(Section):
    """GET; any 2xx or 3xx answer is healthy. Short form: a URL."""

    needs_value: ClassVar[bool] = True
    port: Port
    host: Host = "127.0.0.1"
    path: Annotated[str, Reader(_url_path)] = "/"

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The parts of a URL."""
        try:
            url = urlsplit(leaf.text)
            port = url.port
        except ValueError:
            raise ReadError("cannot read URL", _HTTP_FIX) from None
        if url.scheme != "http" or not url.hostname or url.username is not None or url.fragment:
            why = "https is not checked by the agent" if url.scheme == "https" else "cannot read URL"
            raise ReadError(
                why, _HTTP_FIX + (", or use exec with a program such as curl" if url.scheme == "https" else "")
            )
        path = (url.path or "/") + ("?" + url.query if url.query else "")
        parts = {"host": url.hostname, "port": str(port or 80), "path": path}
        return {key: Leaf(value, leaf.place) for key, value in parts.items()}


class Tcp(Section):
    """A connection is healthy. Short form: a port, or host:port."""

    needs_value: ClassVar[bool] = True
    port: Port
    host: Host = "127.0.0.1"

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """Port, or host and port; an IPv6 address in brackets."""
        host, colon, port = leaf.text.rpartition(":")
        if not colon:
            return {"port": leaf}
        return {"host": Leaf(host.removeprefix("[").removesuffix("]"), leaf.place), "port": Leaf(port, leaf.place)}


def _interval(value: object) -> float:
    return 0.0 if readers.text(value) == "0" else readers.duration(0.1)(value)


class Health(Section):
    """At most one kind of check. Short form: ``none``, ``sd_notify`` or a URL."""

    needs_value: ClassVar[bool] = True
    http: Http | None = None
    tcp: Tcp | None = None
    exec: Argv | None = None
    sd_notify: Flag = False
    none: Flag = False
    interval: Annotated[float, Reader(_interval)] | None = None
    timeout: PositiveDuration | None = None
    failures: Annotated[int, Reader(readers.whole(1, 1000, "number of failures"))] | None = None
    retries: Annotated[int, Reader(readers.whole(1, 1000, "number of failures"))] | None = None

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """The kind alone."""
        if leaf.text in ("none", "sd_notify"):
            return {leaf.text: Leaf("true", leaf.place)}
        if leaf.text.startswith(("http:", "https:")):
            return {"http": leaf}
        if leaf.text.startswith("tcp://"):
            return {"tcp": Leaf(leaf.text.removeprefix("tcp://"), leaf.place)}
        raise ReadError("unknown check", "use one of http, tcp, exec, sd_notify or none")

    @property
    def kind(self) -> str:
        """The one that is set, 'none', or '' when the kind is left to the service's default."""
        given = [name for name in (*KINDS, "none") if getattr(self, name)]
        return given[0] if given else ""

    @model_validator(mode="after")
    def _one(self) -> Health:
        given = [name for name in (*KINDS, "none") if getattr(self, name)]
        if len(given) > 1:
            raise ReadError(f"more than one check: {', '.join(given)}", "keep one of http, tcp, exec, sd_notify")
        if self.failures is not None and self.retries is not None:
            raise ReadError("failures and retries are the same", "keep failures")
        return self
