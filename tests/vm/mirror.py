"""Where the guest's packages come from: the Debian mirror in this machine's own apt configuration.

Formats: sources.list(5), one-line style and deb822. Repositories of other vendors are left out: they are not needed,
and their keys and suites mean nothing to another Debian release.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ARCHIVE = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_DEBIAN_PATH = re.compile(r"/(?P<name>debian(-security)?)(/|$)")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")


class Source(NamedTuple):
    """One repository for binary packages."""

    uri: str
    suite: str
    signed_by: str = ""


def one_line_sources(text: str) -> Iterator[Source]:
    """The repositories of a ``*.list`` file."""
    for line in text.splitlines():
        if found := _ONE_LINE.match(line.strip()):
            options = dict(pair.partition("=")[::2] for pair in (found["options"] or "").split())
            yield Source(found["uri"], found["suite"], options.get("signed-by", ""))


def deb822_sources(text: str) -> Iterator[Source]:
    """The enabled repositories of a ``*.sources`` file."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", lines):
        fields = {
            key.strip().lower(): " ".join(value.split())
            for key, colon, value in (line.partition(":") for line in re.sub(r"\n[ \t]", " ", paragraph).splitlines())
            if colon
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, fields.get("signed-by", ""))


def is_debian(source: Source) -> bool:
    """Whether it is a mirror of Debian's own archive, reachable over the network."""
    if not source.uri.startswith(("http://", "https://")):
        return False
    return "debian-archive-keyring" in source.signed_by or _DEBIAN_PATH.search(source.uri) is not None


def guest_sources(configured: list[Source], suite: str, keyring: str = KEYRING) -> str:
    """A ``sources.list`` for the guest's ``suite``, from the mirrors this machine uses, whatever its own suite is."""
    archive, security = ARCHIVE, SECURITY
    for source in reversed([source for source in configured if is_debian(source)]):  # the first one wins
        if "-security" in source.suite or "debian-security" in source.uri:
            security = source.uri
        elif "backports" not in source.suite:
            archive = source.uri
    option = f"[signed-by={keyring}] " if keyring else ""
    wanted = ((archive, suite), (archive, f"{suite}-updates"), (security, f"{suite}-security"))
    return "".join(f"deb {option}{uri} {name} main\n" for uri, name in wanted)


def configured_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """All repositories of this machine, in the order of sources.list, then the files of sources.list.d by name."""
    found: list[Source] = []
    parts = etc_apt / "sources.list.d"
    files = [etc_apt / "sources.list", *(sorted(parts.iterdir()) if parts.is_dir() else [])]
    for file in files:
        parse = {".list": one_line_sources, ".sources": deb822_sources}.get(file.suffix)
        if parse is None or not os.access(file, os.R_OK):
            continue
        found.extend(parse(file.read_text(errors="replace")))
    return found
