"""What a bundled service is told: one JSON object in EDGE_AGENT_SERVICE_OPTIONS, every key optional.

Services that share a process are told by one object of such objects, by name.

    name          str           must be the service's name when given
    data_dir      str           the service's own directory; default: DATA_DIR/services/NAME
    run_dir       str           its socket is NAME.sock in there; default: RUN_DIR/bundled/NAME
    port          int | null    also listen on tcp://127.0.0.1:PORT, with CURVE
    clients       [str]         CURVE public keys (Z85) that may use the port; none: nobody
    node_id       str | null    default: made from the identity key, or the host name
    cluster_name  str | null
    cache_only    bool          storage: keep a bounded cache, not a store
    cache_bytes   int | null    storage: bound of the cache on disk; default: half of its cgroup's memory.max
    read_through  bool          storage: fetch what is not here from full peers, by the node service
    scrub_interval  number      storage: seconds from one scrub to the next; 0: only on demand
    scrub_rate    int           storage: bytes a second that a scrub reads
    blob_replicas int           storage: how many nodes should have a blob of which nothing else is said
    p2p           object        node: {mode: light | full, listen: str | null, heartbeat: seconds,
                                       peers: [{endpoint: str, key: str}], logs: [str], members: str | null}
    origin        str | null    ledger: the log's name; default: made from the names of cluster and node
    record        bool          ledger: whether events of the agent are entries; default: yes
    witnesses     [str]         ledger: verifier keys of those whose cosignatures are kept
    quorum        int           ledger: how many of them make a head a witnessed one
    http          object        telemetry: {address: str, port: int}, where it is scraped
    status        str           telemetry, ledger, node: the agent's status socket
    analytics     object        analytics: {interval: seconds, flush: seconds, max_bytes: int}
    control       str           timekeeper: the agent's control socket
    profile       str           timekeeper: the profile whose schedule it keeps
    schedule      [object]      timekeeper: its entries, as ``model.Entry``

Keys that are not listed are ignored and said once: a profile may carry keys for other releases.
Without the variable a service can be started by hand; DATA_DIR and RUN_DIR are then those of an agent of this user:
EDGE_AGENT_DATA_DIR and EDGE_AGENT_RUN_DIR; else for root /var/lib/edge-agent and /run/edge-agent, for others below
XDG_STATE_HOME and XDG_RUNTIME_DIR, as in ``profile.directories``, which a service does not import.
"""

from __future__ import annotations

import json
import os
import pwd
import socket

from ..model import Entry
from ..peers.wire import MAX_NAME
from ..peers.zap import is_key
from ..records import Record
from .errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..notes import Verifier
    from ..peers.session import Target

VARIABLE = "EDGE_AGENT_SERVICE_OPTIONS"
MAX_LOGS = 16
HEARTBEATS = (0.1, 86_400.0)  # seconds, shortest and longest
INTERVALS = (0.1, 86_400.0)  # seconds
LEAST_KEPT = 4 * 1024 * 1024  # bytes
SCRUB_INTERVAL, LONGEST_INTERVAL = 7 * 86_400.0, 366 * 86_400.0  # seconds
SCRUB_RATE = 4 * 1024 * 1024  # bytes a second
MOST_REPLICAS = 255


class Link(Record):
    """The node service's part: the link to other nodes."""

    mode: str = "light"
    listen: str | None = None  # full: tcp://ADDRESS:PORT
    # light: whom to connect to; full: whose keys may connect, and with an endpoint a full node that light ones hear of
    peers: tuple[Target, ...] = ()
    heartbeat: float = 60.0  # seconds
    logs: tuple[str, ...] = ()  # verifier keys (C2SP signed-note) of the logs that are believed
    members: str = ""  # full: a file with one more key a line, read again when it changes; '': none


class LogOptions(Record):
    """The ledger's part."""

    origin: str | None = None
    record: bool = True
    witnesses: tuple[Verifier, ...] = ()
    quorum: int = 0


class Exporter(Record):
    """The telemetry service's part: where it listens for scrapes."""

    address: str = "127.0.0.1"  # of this machine, IPv4 or IPv6
    port: int = 9090


class Keeping(Record):
    """The analytics service's part."""

    interval: float = 60.0  # seconds between two samples of everything
    flush: float = 600.0  # seconds between two writes
    max_bytes: int = 64 * 1024 * 1024  # of everything on disk


class Options(Record):
    """Everything a bundled service is told."""

    name: str
    data_dir: str
    run_dir: str
    port: int | None = None
    clients: frozenset[str] = frozenset()
    node_id: str | None = None
    cluster_name: str | None = None
    cache_only: bool = False
    cache_bytes: int | None = None
    read_through: bool = False
    scrub_interval: float = SCRUB_INTERVAL
    scrub_rate: int = SCRUB_RATE
    blob_replicas: int = 1
    link: Link = Link()
    control: str = ""
    profile: str = ""
    schedule: tuple[Entry, ...] = ()
    ignored: tuple[str, ...] = ()  # keys without a meaning here
    log: LogOptions = LogOptions()
    http: Exporter = Exporter()
    status: str = ""
    keeping: Keeping = Keeping()


def read_all(names: Sequence[str], environ: Mapping[str, str], uid: int) -> list[Options]:
    """The options of each service of one process. Raises StartError naming the wrong keys of the first that has any."""
    if len(names) == 1:
        return [read(names[0], environ, uid)]
    given = _object(environ)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise StartError(f"cannot use {VARIABLE}: not run here: {', '.join(unknown)}; fix: one key for each of {names}")
    return [_options(name, given.get(name, {}), environ, uid) for name in names]


def read(name: str, environ: Mapping[str, str], uid: int) -> Options:
    """The options of service ``name``, alone in its process. Raises StartError naming every wrong key."""
    return _options(name, _object(environ), environ, uid)


def _object(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        given = json.loads(environ.get(VARIABLE, "{}"))
    except (ValueError, RecursionError) as error:
        raise StartError(f"cannot read {VARIABLE}: not JSON ({error}); fix: one JSON object") from error
    if not isinstance(given, dict):
        raise StartError(f"cannot read {VARIABLE}: not a JSON object; fix: one JSON object")
    return given


def _options(name: str, given: Any, environ: Mapping[str, str], uid: int) -> Options:
    if not isinstance(given, dict):
        raise StartError(f"cannot use {VARIABLE}: {name} is not an object; fix: see edge_agent/services/options.py")
    reader = _Reader(given)
    if reader.text("name", name) != name:
        reader.wrong("name", f"is for another service than {name}")
    data, run = _directories(environ, uid)
    options = Options(
        name=name,
        data_dir=reader.directory("data_dir", os.path.join(data, "services", name)),
        run_dir=reader.directory("run_dir", os.path.join(run, "bundled", name)),
        port=reader.whole("port", 1, 65_535),
        clients=frozenset(reader.keys("clients")),
        node_id=reader.name("node_id"),
        cluster_name=reader.name("cluster_name"),
        cache_only=reader.flag("cache_only"),
        cache_bytes=reader.whole("cache_bytes", 1, 2**63),
        read_through=reader.flag("read_through"),
        scrub_interval=reader.seconds("scrub_interval", (0.0, LONGEST_INTERVAL), SCRUB_INTERVAL),
        scrub_rate=reader.whole("scrub_rate", 1, 2**40) or SCRUB_RATE,
        blob_replicas=reader.whole("blob_replicas", 1, MOST_REPLICAS) or 1,
        link=_link(reader),
        control=reader.directory("control", os.path.join(run, "control")),
        profile=reader.text("profile", ""),
        schedule=_schedule(reader),
        log=_log(reader),
        http=_exporter(reader),
        status=reader.directory("status", os.path.join(run, "status")),
        keeping=_keeping(reader),
        ignored=tuple(sorted(key for key in given if key not in reader.known)),
    )
    if reader.problems:
        raise StartError(
            f"cannot use {VARIABLE}: {', '.join(reader.problems)}; fix: see edge_agent/services/options.py"
        )
    return options


def _link(reader: _Reader) -> Link:
    inner = reader.object("p2p")
    mode = inner.text("mode", "light")
    if mode not in ("light", "full"):
        inner.wrong("mode", "is neither light nor full")
    listen = inner.text("listen", "")
    if listen and not listen.startswith("tcp://"):
        inner.wrong("listen", "is not tcp://ADDRESS:PORT")
    if mode == "full" and not listen:
        inner.wrong("listen", "is missing: a full node listens")
    heartbeat = inner.seconds("heartbeat", HEARTBEATS, Link().heartbeat)
    peers = _peers(inner, needs_endpoint=mode == "light")
    members = inner.directory("members", "/")
    return Link(mode, listen or None, peers, heartbeat, _logs(inner), "" if members == "/" else members)


def _logs(reader: _Reader) -> tuple[str, ...]:
    """Texts alone: ``notes`` says whether they are verifier keys, where they are needed."""
    given = reader.get("logs", [])
    if isinstance(given, list) and all(isinstance(item, str) for item in given) and len(given) <= MAX_LOGS:
        return tuple(given)
    reader.wrong("logs", f"is not a list of at most {MAX_LOGS} verifier keys")
    return ()


def _log(reader: _Reader) -> LogOptions:
    origin = reader.text("origin", "")
    given, witnesses = reader.get("witnesses", []), []
    if origin or given:
        from ..notes import NoteError, Verifier  # 1 MiB with what it imports: for services that have a log

        try:
            if origin:
                Verifier.of(origin, bytes(32))  # a name as a key may have it
            witnesses = [Verifier.parse(each) for each in given]
        except (NoteError, TypeError) as error:
            reader.wrong("origin and witnesses", f"are not a name and a list of verifier keys: {error}")
    quorum = reader.whole("quorum", 0, len(witnesses)) or 0
    return LogOptions(origin or None, reader.flag("record", default=True), tuple(witnesses), quorum)


def _exporter(reader: _Reader) -> Exporter:
    inner = reader.object("http")
    address = inner.text("address", Exporter().address)
    if not _is_address(address):
        inner.wrong("address", "is not an IP address")
    return Exporter(address, inner.number("port", 0, 65_535, Exporter().port))  # 0: any, for tests


def _is_address(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _keeping(reader: _Reader) -> Keeping:
    inner, default = reader.object("analytics"), Keeping()
    return Keeping(
        inner.seconds("interval", INTERVALS, default.interval),
        inner.seconds("flush", INTERVALS, default.flush),
        inner.number("max_bytes", LEAST_KEPT, 2**63, default.max_bytes),
    )


def _schedule(reader: _Reader) -> tuple[Entry, ...]:
    given = reader.get("schedule", [])
    if not isinstance(given, list):
        reader.wrong("schedule", "is not a list")
        return ()
    entries = []
    for position, each in enumerate(given):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str) or set(each) - set(Entry._fields):
            reader.wrong(f"schedule[{position}]", "is not an entry")
            continue
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in each.items()
        }
        default = Entry("")
        wrong = [key for key, value in fields.items() if not _same(value, getattr(default, key))]
        if wrong:
            reader.wrong(f"schedule[{position}].{wrong[0]}", "is of the wrong type")
        else:
            entries.append(Entry(**fields))
    return tuple(entries)


def _same(value: object, default: object) -> bool:
    """Whether a value has the type of the default; a whole number may stand for a float."""
    return type(value) is type(default) or (type(default) is float and type(value) is int)


def _peers(reader: _Reader, *, needs_endpoint: bool) -> tuple[Target, ...]:
    given = reader.get("peers", [])
    if not isinstance(given, list):
        reader.wrong("peers", "is not a list")
        return ()
    if not given:
        return ()
    from ..peers.session import Target  # for the node service alone

    targets = []
    for position, entry in enumerate(given):
        if not isinstance(entry, dict):
            reader.wrong(f"peers[{position}]", "is not an object")
            continue
        inner = _Reader(entry, f"{reader.path}peers[{position}].", reader.problems)
        endpoint, key = inner.text("endpoint", ""), inner.text("key", "")
        if (endpoint or needs_endpoint) and not endpoint.startswith("tcp://"):
            inner.wrong("endpoint", "is not tcp://HOST:PORT")
        if not is_key(key):
            inner.wrong("key", "is not a CURVE public key of 40 Z85 characters")
        targets.append(Target(endpoint, key))
    if len({target.key for target in targets}) != len(targets):
        reader.wrong("peers", "has the same key twice")
    return tuple(targets)


def _directories(environ: Mapping[str, str], uid: int) -> tuple[str, str]:
    """The data and the run directory. A test holds them to be those of ``profile.directories.find``."""
    if uid == 0:
        data, run = "/var/lib/edge-agent", "/run/edge-agent"
    else:
        state, runtime = environ.get("XDG_STATE_HOME", ""), environ.get("XDG_RUNTIME_DIR", "")
        if not os.path.isabs(state):
            state = os.path.join(_home(environ, uid), ".local/state")
        data = os.path.join(state, "edge-agent")
        run = os.path.join(runtime, "edge-agent") if os.path.isabs(runtime) else os.path.join(data, "run")
    return _variable(environ, "DATA_DIR", data), _variable(environ, "RUN_DIR", run)


def _home(environ: Mapping[str, str], uid: int) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def _variable(environ: Mapping[str, str], name: str, default: str) -> str:
    given = environ.get("EDGE_AGENT_" + name) or environ.get("BLACKHOLE_" + name)
    return os.path.abspath(given) if given else default


class _Reader:
    """Typed values of one JSON object; what is wrong is collected, not raised."""

    def __init__(self, given: dict[str, Any], path: str = "", problems: list[str] | None = None) -> None:
        self.given, self.path = given, path
        self.problems: list[str] = [] if problems is None else problems
        self.known: set[str] = set()

    def wrong(self, key: str, why: str) -> None:
        self.problems.append(f"{self.path}{key} {why}")

    def get(self, key: str, default: Any = None) -> Any:
        self.known.add(key)
        value = self.given.get(key)
        return default if value is None else value

    def text(self, key: str, default: str) -> str:
        value = self.get(key, default)
        if isinstance(value, str):
            return value
        self.wrong(key, "is not text")
        return default

    def name(self, key: str) -> str | None:
        value = self.text(key, "")
        if len(value) > MAX_NAME or not value.isprintable():
            self.wrong(key, f"is not at most {MAX_NAME} printable characters")
        return value or None

    def directory(self, key: str, default: str) -> str:
        value = self.text(key, default)
        if not value.startswith("/") or "\0" in value:
            self.wrong(key, "is not an absolute path")
        return value

    def object(self, key: str) -> _Reader:
        value = self.get(key, {})
        if not isinstance(value, dict):
            self.wrong(key, "is not an object")
            value = {}
        return _Reader(value, f"{self.path}{key}.", self.problems)

    def seconds(self, key: str, bounds: tuple[float, float], default: float) -> float:
        value = self.get(key, default)
        if type(value) in (int, float) and bounds[0] <= value <= bounds[1]:
            return float(value)
        self.wrong(key, f"is not a number of seconds from {bounds[0]:g} to {bounds[1]:g}")
        return default

    def whole(self, key: str, low: int, high: int) -> int | None:
        value = self.get(key)
        if value is None:
            return None
        if type(value) is int and low <= value <= high:
            return value
        self.wrong(key, f"is not a whole number from {low} to {high}")
        return None

    def number(self, key: str, low: int, high: int, default: int) -> int:
        value = self.whole(key, low, high)
        return default if value is None else value

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.get(key, default)
        if isinstance(value, bool):
            return value
        self.wrong(key, "is neither true nor false")
        return default

    def keys(self, key: str) -> list[str]:
        value = self.get(key, [])
        if isinstance(value, list) and all(isinstance(item, str) and is_key(item) for item in value):
            return value
        self.wrong(key, "is not a list of CURVE public keys of 40 Z85 characters")
        return []
