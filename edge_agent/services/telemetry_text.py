"""Metrics of many sources on one page, and the page as text: Prometheus' format 0.0.4 or OpenMetrics 1.0.0. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats, https://prometheus.io/docs/specs/om/open_metrics_spec. A
library would write the same text: importing prometheus_client costs 5.3 MiB of private memory beside this service's 8
(Python 3.11, x86-64), and its registry is made for metrics of its own process.

What a source sends is not trusted to be small or well formed: it is bounded here, and what is over a bound or not a
metric is left out and counted.
"""

from __future__ import annotations

import math

from ..peers.wire import pack, unpack
from .metrics import COUNTER, GAUGE, Metric

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "edge_agent_"
"""Of every name but those every exporter has (process_...)."""
MAX_FAMILIES = 128  # of one source
MAX_SAMPLES = 512  # of one source
MAX_PAGE = 8192  # samples of all sources together
MAX_LABELS = 8  # of one sample, as it was sent
MAX_NAME = 100  # characters of a name, a metric's or a label's
MAX_VALUE = 128  # characters of a label's value
MAX_HELP = 256
MAX_PACKED = 768 * 1024  # bytes
_ITEMS = 24 * MAX_PAGE

TEXT, OPENMETRICS = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_REST = _FIRST | frozenset("0123456789")
_SUFFIXES = ("_total", "_created")  # what OpenMetrics lets a counter called by its family's name have
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


class Page:
    """Families in the order they came, each name with one kind, each set of labels once. ``dropped``: by source."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self._families: dict[str, tuple[str, str, dict[tuple[tuple[str, str], ...], float]]] = {}
        self._taken: dict[str, str] = {}  # a name of a sample, or one it could have -> its family
        self._count = 0

    def add(self, metric: Metric, source: str = "", **labels: str) -> None:
        """One family, or samples for one that is there. ``labels`` go over those of the samples."""
        for own, value in metric.samples:
            if not self._add(metric, {**own, **labels}, value):
                self.drop(source)

    def add_sent(self, given: object, source: str) -> None:
        """What a service answered to ``metrics``, under its name; whatever it is, nothing is raised."""
        if not isinstance(given, list):
            self.drop(source)
            return
        room = MAX_SAMPLES
        for position, sent in enumerate(given):
            metric = _metric(sent, room, MAX_LABELS) if position < MAX_FAMILIES else None
            if metric is None:
                self.drop(source)
                continue
            if len(metric.samples) < len(sent[3]):
                self.drop(source, len(sent[3]) - len(metric.samples))
            room -= len(metric.samples)
            self.add(metric._replace(name=PREFIX + metric.name.removeprefix(PREFIX)), source, service=source)

    def drop(self, source: str, count: int = 1) -> None:
        """Take note of what is left out."""
        self.dropped[source] = self.dropped.get(source, 0) + count

    def __iter__(self) -> Iterator[Metric]:
        for name, (kind, about, samples) in self._families.items():
            yield Metric(name, kind, about, tuple((dict(labels), value) for labels, value in samples.items()))

    def __len__(self) -> int:
        return self._count

    def _add(self, metric: Metric, labels: Mapping[str, str], value: float) -> bool:
        if self._count >= MAX_PAGE:
            return False
        name = metric.name
        if metric.kind == COUNTER:
            if not value >= 0:  # nor is NaN
                return False
            name = name if name.endswith("_total") else f"{name}_total"
        family = self._family(name, metric)
        key = tuple(sorted(labels.items()))
        if family is None or key in family:
            return False
        family[key] = value
        self._count += 1
        return True

    def _family(self, name: str, metric: Metric) -> dict[tuple[tuple[str, str], ...], float] | None:
        found = self._families.get(name)
        if found is not None:
            return found[2] if found[0] == metric.kind else None
        base = name.removesuffix("_total")
        names = (base, *(base + suffix for suffix in _SUFFIXES)) if metric.kind == COUNTER else (name,)
        if any(each in self._taken for each in names):
            return None
        self._taken |= dict.fromkeys(names, name)
        made: dict[tuple[tuple[str, str], ...], float] = {}
        self._families[name] = (metric.kind, metric.help[:MAX_HELP], made)
        return made


def _metric(sent: object, samples_most: int, labels_most: int) -> Metric | None:
    """One family as it was sent, without the samples that are none; None when it is no family."""
    if not isinstance(sent, list) or len(sent) != 4:
        return None
    name, kind, about, samples = sent
    if not (isinstance(name, str) and is_name(name) and isinstance(about, str) and isinstance(samples, list)):
        return None
    if kind not in (COUNTER, GAUGE):
        return None
    known = tuple(sample for each in samples[:samples_most] if (sample := _sample(each, labels_most)) is not None)
    return Metric(name, kind, about, known)


def _sample(sent: object, labels_most: int) -> tuple[dict[str, str], float] | None:
    if not isinstance(sent, list) or len(sent) != 2:
        return None
    labels, value = sent
    if type(value) not in (int, float) or not isinstance(labels, dict) or len(labels) > labels_most:
        return None
    for name, text in labels.items():
        if not (isinstance(name, str) and is_name(name) and not name.startswith("__")):
            return None
        if not isinstance(text, str) or len(text) > MAX_VALUE:
            return None
    return labels, value


def is_name(text: str) -> bool:
    """May a metric or a label be called this? Colons are for rules, so they are not among the letters."""
    return 0 < len(text) <= MAX_NAME and text[0] in _FIRST and _REST.issuperset(text)


# -- as text ----------------------------------------------------------------------------------------------------------


def chosen(accept: str) -> str:
    """TEXT or OPENMETRICS, by the Accept header of a request: OpenMetrics where it is named in a version we write."""
    for item in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        if kind != "application/openmetrics-text" or "q=0" in parameters:
            continue
        versions = [part for part in parameters if part.startswith("version=")]
        if not versions or versions[0] in ("version=1.0.0", "version=0.0.1"):
            return OPENMETRICS
    return TEXT


def render(page: Page, form: str = TEXT) -> bytes:
    """The page. Labels are sorted by name, families and samples in the order they came."""
    lines = []
    for metric in page:
        name = metric.name
        family = name.removesuffix("_total") if form == OPENMETRICS and metric.kind == COUNTER else name
        escapes = _ESCAPES if form == OPENMETRICS else _HELP_ESCAPES
        lines.append(f"# HELP {family} {metric.help.translate(escapes)}\n# TYPE {family} {metric.kind}\n")
        for labels, value in metric.samples:
            inner = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
            lines.append(f"{name}{{{inner}}} {_number(value)}\n" if inner else f"{name} {_number(value)}\n")
    if form == OPENMETRICS:
        lines.append("# EOF\n")
    return "".join(lines).encode("utf-8", "replace")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


# -- as bytes, for another service ------------------------------------------------------------------------------------


def pack_page(page: Page) -> bytes:
    """The page for ``unpack_page``; what does not fit into MAX_PACKED is left out, the last families first."""
    families = [[each.name, each.kind, each.help, [list(sample) for sample in each.samples]] for each in page]
    while len(packed := pack({"families": families})) > MAX_PACKED:
        del families[len(families) * 3 // 4 :]
    return packed


def unpack_page(data: bytes) -> list[Metric]:
    """The families in ``data``. Raises WireError; what is no family or no sample is left out."""
    sent = unpack(data, MAX_PACKED, _ITEMS).get("families")
    families = sent if isinstance(sent, list) else []
    found = (_metric(each, MAX_PAGE, MAX_LABELS + 1) for each in families)
    return [metric for metric in found if metric is not None]
