"""YAML text to a tree with places, bounded in size, depth and aliases before anything is built from it.

Works on the parser's events instead of PyYAML's composer: the composer recurses in C, loses duplicate keys, and has
expanded an alias bomb by the time one could count it. Scalars stay text; the reader of each key knows what it wants.
"""

from __future__ import annotations

import re
from typing import NoReturn

import yaml

from .problems import MOST_PROBLEMS, Place, Problem, ProfileError, problem
from .tree import Leaf, Map, Node, Seq, dotted

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Nodes after alias expansion. A profile of 1,000 services has about 30,000."""
MAX_DEPTH = 40

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(("str", "int", "float", "bool", "null", "timestamp"))
_COMPLEX_KEY = ("a key must be a single text, not a list or mapping", "quote it")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

_FIXES = (
    # (what libyaml or PyYAML says, what people understand, what to do)
    (
        "mapping values are not allowed",
        "a second ': ' in one value, or wrong indentation",
        "quote the value, or indent as the lines around it",
    ),
    (
        "did not find expected key",
        "this line does not line up with the keys above it",
        "indent it as its neighbours, and close every quote and bracket above",
    ),
    (
        "expected <block end>",
        "this line does not line up with the keys above it",
        "indent it as its neighbours, and close every quote and bracket above",
    ),
    (
        "did not find expected '-' indicator",
        "this line does not line up with the list above it",
        "indent it as its neighbours",
    ),
    ("could not find expected ':'", "a key without a colon", "write 'key: value'"),
    ("found unexpected end of stream", "a quote that is never closed", "close it"),
    ("found unexpected document indicator", "a quote that is never closed", "close it"),
    ("found unknown escape", "an unknown escape in a double-quoted text", "double the backslash, or use single quotes"),
    (
        "did not find expected ',' or",
        "a bracket that is never closed, or a comma missing",
        "close it, or put the comma",
    ),
    ("expected ',' or", "a bracket that is never closed, or a comma missing", "close it, or put the comma"),
    ("did not find expected node content", "a value is missing inside brackets", "write it, or remove the comma"),
    # libyaml's own bound, of a thousand or so, is met before ours: its scanner reads ahead for the end of a simple key.
    ("exceeded maximum nesting depth", f"nested more than {MAX_DEPTH} levels deep", "a profile needs about 6"),
    (
        "block sequence entries are not allowed",
        "a list cannot start on this line",
        "start the list on the next line, indented",
    ),
)


def parse(raw: bytes, file: str) -> tuple[Map, list[Problem]]:
    """The document in ``raw``, an empty one as an empty mapping, and what is wrong with it that leaves a tree.

    Raises ProfileError, with every problem found so far, for what leaves none: bad syntax or a bound passed.
    """
    text = _decode(raw, file)
    loader = _Loader(text)
    builder = _Builder(file)
    try:
        while loader.check_event():
            builder.take(loader.get_event())
    except yaml.MarkedYAMLError as error:
        raise ProfileError([*builder.problems, _syntax(error, text, file)]) from None
    except yaml.YAMLError as error:
        raise ProfileError([Problem(file, 0, "", "", f"not valid YAML: {error}")]) from None
    finally:
        loader.dispose()
    top = builder.top
    if isinstance(top, Leaf) and (top.empty or top.null):
        top = Map(top.place)
    if not isinstance(top, Map):
        what = "a list" if isinstance(top, Seq) else "a single value"
        raise ProfileError(
            [
                *builder.problems,
                problem(top.place, "", "", f"a profile is a mapping of keys, this is {what}", "start with 'services:'"),
            ]
        )
    return top, builder.problems


def parse_value(text: str, place: Place) -> Node:
    """One value in YAML, as a variable or a flag holds it. Problems stand at ``place``."""
    try:
        top, problems = parse(b"value: " + text.encode("utf-8", "surrogateescape"), place.source)
    except ProfileError as error:
        top, problems = Map(place), list(error.problems)
    if problems:
        raise ProfileError(each._replace(line=0, column=0, key="") for each in problems)
    return _moved(top.entries["value"], place)


def _moved(node: Node, place: Place) -> Node:
    if isinstance(node, Map):
        entries = {key: _moved(child, place) for key, child in node.entries.items()}
        return Map(place, entries, dict.fromkeys(entries, place))
    if isinstance(node, Seq):
        return Seq(place, [_moved(child, place) for child in node.items])
    return Leaf(node.text, place, node.plain)


def _decode(raw: bytes, file: str) -> str:
    if len(raw) > MAX_BYTES:
        raise ProfileError(
            [
                Problem(
                    file,
                    0,
                    "",
                    "",
                    f"cannot read profile: it is larger than {MAX_BYTES} bytes (1 MiB)",
                    "move data out of the profile",
                )
            ]
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ProfileError(
            [
                Problem(
                    file,
                    line,
                    "",
                    "",
                    f"cannot read profile: byte 0x{raw[error.start]:02x} is not UTF-8",
                    "save the file as UTF-8",
                )
            ]
        ) from None
    bad = _UNPRINTABLE.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        what = "a NUL byte" if bad.group() == "\0" else f"the control character U+{ord(bad.group()):04X}"
        raise ProfileError(
            [
                Problem(
                    file,
                    line,
                    "",
                    "",
                    f"cannot read profile: {what} is not allowed in YAML",
                    "remove it; in a double-quoted text write \\x00 and the like",
                )
            ]
        )
    return text


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = str(error.problem or error.context or "cannot be parsed")
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    if "cannot start any token" in said and mark:
        lines = text.splitlines()
        character = lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""
        if character == "\t":
            return problem(place, "", "", "not valid YAML: a tab is not allowed as indentation", "indent with spaces")
        return problem(
            place, "", character, "not valid YAML: a value cannot start with this character", "quote the value"
        )
    opened = "flow" in str(error.context) or ("scalar" in str(error.context) and "end of stream" in said)
    if error.context_mark and opened:  # where the bracket or quote stands, not where its end was missed
        place = Place(file, error.context_mark.line + 1, error.context_mark.column + 1)
    for phrase, why, fix in _FIXES:
        if phrase in said:
            return problem(place, "", "", f"not valid YAML: {why}", fix)
    return problem(place, "", "", f"not valid YAML: {said}")


class _Frame:
    """A mapping or list under construction."""

    __slots__ = ("anchor", "key", "key_place", "merges", "node")

    def __init__(self, node: Map | Seq, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None  # of the value that comes next
        self.key_place = node.place
        self.merges: list[Map] = []  # values of '<<'


class _Builder:
    """Builds the tree from events with a stack of its own: depth is bounded here, not by recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.top: Node = Leaf("", Place(file, 1, 1))
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}  # None: still open
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Add what one event says. Raises ProfileError when a bound is passed."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(
                    self._place(event),
                    "a profile is one YAML document, a second one starts here",
                    "remove the '---', or use two files",
                )

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        place = self._place(event)
        plain = event.implicit[0]
        if event.tag is not None and event.tag != "!":
            kind = event.tag.removeprefix(_STANDARD)
            if kind not in _SCALAR_TAGS:
                self._tag(place, event.tag)
            plain = kind != "str"
        leaf = Leaf(event.value, place, plain)
        if event.anchor:
            self._anchors[event.anchor] = leaf
        self._key_or_value(leaf, place)

    def _key_or_value(self, node: Node, place: Place) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame is None or isinstance(frame.node, Seq) or frame.key is not None:
            self._add(node, place)
        elif isinstance(node, Leaf):
            self._key(frame, frame.node, node.text, place)
        else:
            self._stop(place, *_COMPLEX_KEY)

    def _key(self, frame: _Frame, holder: Map, key: str, place: Place) -> None:
        if not key:
            self._report(place, "a key is empty", "write a name before the colon")
        frame.key, frame.key_place = key, place
        if key in holder.entries:
            self._report(place, f"given twice, first in line {holder.keys[key].line}", "keep one of them")

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        place = self._place(event)
        if len(self._frames) >= MAX_DEPTH:
            self._stop(place, f"nested more than {MAX_DEPTH} levels deep", "a profile needs about 6")
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _STANDARD + ("map" if mapping else "seq")):
            self._tag(place, event.tag)
        frame = self._frames[-1] if self._frames else None
        if frame and isinstance(frame.node, Map) and frame.key is None:
            self._stop(place, *_COMPLEX_KEY)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._frames.append(_Frame(Map(place) if mapping else Seq(place), event.anchor))

    def _close(self) -> None:
        frame = self._frames.pop()
        node = frame.node
        if isinstance(node, Map):
            for base in frame.merges:
                for key, child in base.entries.items():
                    if key not in node.entries:
                        node.entries[key], node.keys[key] = child, base.keys[key]
        if frame.anchor:
            self._anchors[frame.anchor] = node
        self._add(node, node.place)

    def _alias(self, event: yaml.AliasEvent) -> None:
        place = self._place(event)
        if event.anchor not in self._anchors:
            self._stop(place, f"alias *{event.anchor} has no anchor &{event.anchor} above it", "define it first")
        node = self._anchors[event.anchor]
        if node is None:
            self._stop(place, f"alias *{event.anchor} stands inside what it stands for", "remove it")
        self._key_or_value(node, place)

    def _add(self, node: Node, place: Place) -> None:
        if not self._frames:
            self.top = node
            return
        frame = self._frames[-1]
        holder, key = frame.node, frame.key
        holder.size += 1 if isinstance(node, Leaf) else node.size
        if holder.size > MAX_NODES:
            self._stop(place, f"more than {MAX_NODES} values once aliases are expanded", "remove aliases of aliases")
        if isinstance(holder, Seq):
            holder.items.append(node)
        elif key == "<<":
            self._merge_key(frame, node, place)
        elif key is not None and key not in holder.entries:  # a duplicate is reported already
            holder.entries[key], holder.keys[key] = node, frame.key_place
        frame.key = None

    def _merge_key(self, frame: _Frame, node: Node, place: Place) -> None:
        bases = node.items if isinstance(node, Seq) else [node]
        maps = [base for base in bases if isinstance(base, Map)]
        if len(maps) != len(bases):
            self._report(
                place, "'<<' takes a mapping or a list of mappings", "write an alias of a mapping, as '<<: *common'"
            )
        frame.merges += maps

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file)

    def _tag(self, place: Place, tag: str) -> None:
        self._report(place, f"the tag {tag.replace(_STANDARD, '!!')} is not allowed in a profile", "remove it")

    def _report(self, place: Place, why: str, fix: str) -> None:
        path: list[str | int] = []
        for frame in self._frames:
            if isinstance(frame.node, Seq):
                path.append(len(frame.node.items))
            elif frame.key is not None:
                path.append(frame.key)
        self.problems.append(problem(place, dotted(path), "", why, fix))
        if len(self.problems) > MOST_PROBLEMS:
            raise ProfileError(self.problems)

    def _stop(self, place: Place, why: str, fix: str) -> NoReturn:
        self._report(place, why, fix)
        raise ProfileError(self.problems)
