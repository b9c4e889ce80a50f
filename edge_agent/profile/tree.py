"""A document as a tree that knows where every key and value was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .problems import Place

NULLS = frozenset(("null", "Null", "NULL", "~"))

Path = tuple[str | int, ...]
"""Keys and list indexes from the top."""


@dataclass(slots=True)
class Leaf:
    """A scalar, as written. What it means is for the reader of the key it belongs to."""

    text: str
    place: Place
    plain: bool = True  # False when quoted or tagged !!str: then it is text whatever it looks like

    @property
    def empty(self) -> bool:
        """Nothing was written after the colon."""
        return self.plain and not self.text

    @property
    def null(self) -> bool:
        """An explicit ``null``: the key is as if it were not there, also when it was inherited."""
        return self.plain and self.text in NULLS


@dataclass(slots=True)
class Map:
    """A mapping, in file order."""

    place: Place
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    size: int = 1  # nodes in it, aliases expanded


@dataclass(slots=True)
class Seq:
    """A list."""

    place: Place
    items: list[Node] = field(default_factory=list)
    size: int = 1


Node = Leaf | Map | Seq


def merge(base: Map, over: Map) -> Map:
    """``over`` on top of ``base``: mappings key by key, anything else replaced whole, ``null`` takes a key away."""
    merged = Map(over.place, dict(base.entries), dict(base.keys))
    for key, node in over.entries.items():
        below = base.entries.get(key)
        if isinstance(node, Map) and isinstance(below, Map):
            node = merge(below, node)
        merged.entries[key] = node
        merged.keys[key] = over.keys[key]
    return merged


def data(top: Map) -> dict[str, object]:
    """Dictionaries and lists with the leaves as they are, explicit nulls left out: what the models read."""
    entries = top.entries.items()
    return {key: _data(value) for key, value in entries if not (isinstance(value, Leaf) and value.null)}


def _data(node: Node) -> object:
    if isinstance(node, Map):
        return data(node)
    return [_data(item) for item in node.items] if isinstance(node, Seq) else node


def find(top: Node, path: Sequence[str | int]) -> tuple[Node, Place, int]:
    """Walk ``path`` as far as it exists: the node there, the place of its key, the steps taken."""
    node, place = top, top.place
    for taken, step in enumerate(path):
        if isinstance(node, Map) and isinstance(step, str) and step in node.entries:
            place = node.keys[step]
            node = node.entries[step]
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            place = node.place
        else:
            return node, place, taken
    return node, place, len(path)


def without(top: Map, paths: Sequence[Path]) -> Map:
    """A copy without what stands at ``paths``. Items of a list move up."""
    pruned = _without(top, paths)
    return pruned if isinstance(pruned, Map) else top


def _without(node: Node, paths: Sequence[Path]) -> Node:
    if isinstance(node, Leaf):
        return node
    below: dict[str | int, list[Path]] = {}
    for path in paths:
        if path:
            below.setdefault(path[0], []).append(path[1:])

    def kept(pairs: Iterator[tuple[str | int, Node]]) -> Iterator[tuple[str | int, Node]]:
        for step, child in pairs:
            rest = below.get(step)
            if rest is None:
                yield step, child
            elif () not in rest:
                yield step, _without(child, rest)

    if isinstance(node, Seq):
        return Seq(node.place, [child for _, child in kept(iter(enumerate(node.items)))])
    entries = {str(key): child for key, child in kept(iter(node.entries.items()))}
    return Map(node.place, entries, {key: node.keys[key] for key in entries})


def dotted(path: Sequence[str | int]) -> str:
    """``services.node.p2p.peers[0].key``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def from_mapping(values: Mapping[str, object], place: Place) -> Map:
    """A tree from plain Python values, all of them from ``place``."""
    entries = {str(key): from_data(child, place) for key, child in values.items()}
    return Map(place, entries, dict.fromkeys(entries, place))


def from_data(value: object, place: Place) -> Node:
    """A tree from a plain Python value. Booleans and None read as in YAML."""
    if isinstance(value, Mapping):
        return from_mapping(value, place)
    if isinstance(value, (list, tuple)):
        return Seq(place, [from_data(child, place) for child in value])
    if value is None or isinstance(value, bool):
        return Leaf({None: "null", True: "true", False: "false"}[value], place)
    return Leaf(str(value), place, plain=not isinstance(value, str))


def put(top: Map, path: Sequence[str], node: Node) -> None:
    """Set ``path`` below ``top``, making the mappings on the way."""
    for step in path[:-1]:
        below = top.entries.get(step)
        if not isinstance(below, Map):
            below = Map(node.place)
            top.entries[step] = below
            top.keys[step] = node.place
        top = below
    top.entries[path[-1]] = node
    top.keys[path[-1]] = node.place
