"""The kernel's command line in a file, and what has to change in it before limits can be enforced. Pure; front end.

Two places: ``cmdline.txt`` of a Raspberry Pi, one line and nothing else, and ``GRUB_CMDLINE_LINUX`` in
/etc/default/grub. Everything is bytes: words that are none of our business stay as they are, whatever they hold.

Words: kernel-parameters.rst (``cgroup_disable=``, ``psi=``), kernel-command-line(7), and ``cgroup_enable=`` of
Raspberry Pi kernels, which takes back the ``cgroup_disable=memory`` that their device tree adds unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .demand import Facts
from .records import Record

MEMORY = b"cgroup_enable=memory"
PSI = b"psi=1"
UNIFIED = b"systemd.unified_cgroup_hierarchy=1"

LONGEST = 4096
"""Bytes of a file that can be a command line: twice the kernel's longest (COMMAND_LINE_SIZE of arm64)."""

_WORD = re.compile(rb'(?:"[^"]*"|[^\s"])+')  # quotes keep blanks in a word, lib/cmdline.c
_TO_INIT = b"--"  # the kernel reads no further
_GRUB = re.compile(rb"""^(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=("[^"$`\\]*"|'[^']*'|[^\s"'$`\\;#]*)[ \t]*$""", re.MULTILINE)


class BootLineError(Exception):
    """The content is no command line that may be changed. The text says why."""


class Change(Record):
    """``before`` and ``after``: the whole content. The words are for people; without any, nothing has to change."""

    before: bytes
    after: bytes
    added: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()


def needed(facts: Facts) -> tuple[bytes, ...]:
    """The words this machine's command line lacks."""
    words = []
    if facts.memory_disabled_on_cmdline:
        words.append(MEMORY)
    if not facts.psi:
        words.append(PSI)
    if facts.systemd and facts.cgroup in ("hybrid", "v1"):
        words.append(UNIFIED)
    return tuple(words)


def fix(content: bytes, words: Iterable[bytes]) -> Change:
    """The content of a cmdline.txt with ``words`` in force. Raises BootLineError for what is not one line of words."""
    if len(content) > LONGEST:
        raise BootLineError(f"it has more than {LONGEST} bytes")
    if b"\0" in content:
        raise BootLineError("it holds a NUL byte")
    lines = [line for line in content.splitlines() if line.strip()]
    if not lines:
        raise BootLineError("it is empty")
    if len(lines) > 1 or not content.startswith(lines[0]):
        raise BootLineError("it is not one line")
    if lines[0].count(b'"') % 2:
        raise BootLineError("a quotation mark is not closed")
    line, added, removed = _fix_line(lines[0], words)
    return Change(content, line + content[len(lines[0]) :], added, removed)


def fix_grub(content: bytes, words: Iterable[bytes]) -> Change:
    """The same for /etc/default/grub, a shell script. Raises BootLineError when no plain assignment is there to change.

    Words are taken out wherever they are, and added to GRUB_CMDLINE_LINUX, which every entry of the menu gets. A kernel
    that knows ``cgroup_disable=`` alone needs no word to take it back.
    """
    wanted = [word for word in words if word != MEMORY]
    added: tuple[bytes, ...] = ()
    removed: list[bytes] = []
    found = False

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal added, found
        name, value = match[1], match[2]
        quote = value[:1] if value[:1] in (b'"', b"'") else b""
        every = name == b"GRUB_CMDLINE_LINUX"
        line, new, gone = _fix_line(value[len(quote) : len(value) - len(quote)], words, wanted if every else ())
        removed.extend(gone)
        if every:
            added, found = new, True
        if not new and not gone:
            return match[0]
        quote = quote or b'"'
        return name + b"=" + quote + line + quote

    after = _GRUB.sub(replace, content)
    if not found:
        raise BootLineError('it has no plain line GRUB_CMDLINE_LINUX="..."')
    return Change(content, after, added, tuple(removed))


def changed_lines(change: Change) -> list[tuple[bytes, bytes]]:
    """(before, after) of each line that differs, without line ends."""
    pairs = zip(change.before.splitlines(), change.after.splitlines(), strict=True)
    return [(before, after) for before, after in pairs if before != after]


def _fix_line(
    line: bytes, words: Iterable[bytes], wanted: Iterable[bytes] | None = None
) -> tuple[bytes, tuple[bytes, ...], tuple[bytes, ...]]:
    """(line, added, removed): without what contradicts ``words``, and with ``wanted`` of them, None: all."""
    words = tuple(words)
    head, rest = _split(line)
    removed: list[bytes] = []
    for word in words:
        head = _replace_words(head, _CONTRADICTS[word], removed)
    present = {word for word in words if any(_says(found, word) for found in _WORD.findall(head))}
    added = tuple(word for word in (words if wanted is None else wanted) if word not in present)
    tail = head[len(head.rstrip()) :]
    head = b" ".join([part for part in (head.rstrip(), *added) if part])
    if added and rest[:1] == b"-":  # nothing was in front of it
        rest = b" " + rest
    return head + tail + rest, added, tuple(removed)


def _split(line: bytes) -> tuple[bytes, bytes]:
    """What the kernel reads, and what it passes on to init."""
    for match in _WORD.finditer(line):
        if match[0] == _TO_INIT:
            at = len(line[: match.start()].rstrip())
            return line[:at], line[at:]
    return line, b""


def _replace_words(line: bytes, rule: Callable[[bytes], bytes], removed: list[bytes]) -> bytes:
    """Each word as ``rule`` wants it; b'' takes it out, with the blanks in front of it."""
    kept, end = b"", 0
    for match in _WORD.finditer(line):
        left = rule(match[0])
        if left != match[0]:
            removed.append(match[0])
        if left:
            kept += line[end : match.start()] + left
        end = match.end()
    kept += line[end:]
    return kept if line[:1].isspace() else kept.lstrip()


def _without_memory(word: bytes) -> bytes:
    name, _, value = word.partition(b"=")
    if name != b"cgroup_disable":
        return word
    left = [part for part in value.split(b",") if part != b"memory"]
    return name + b"=" + b",".join(left) if left else b""


def _but(wanted: bytes) -> Callable[[bytes], bytes]:
    name = wanted.partition(b"=")[0]

    def rule(word: bytes) -> bytes:
        return b"" if word.partition(b"=")[0] == name and word != wanted else word

    return rule


_CONTRADICTS: dict[bytes, Callable[[bytes], bytes]] = {
    MEMORY: _without_memory,
    PSI: _but(PSI),
    UNIFIED: _but(UNIFIED),
}


def _says(found: bytes, word: bytes) -> bool:
    name, _, value = found.partition(b"=")
    wanted, _, part = word.partition(b"=")
    return name == wanted and (part in value.split(b",") if word == MEMORY else value == part)
