"""Which file a profile is, and the tree that it and what it extends make together."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping

from .directories import Directories, known_profile_directories, variable
from .problems import Place, Problem, ProfileError, problem, suggest
from .text import MAX_BYTES, parse
from .tree import Leaf, Map, Seq, merge

MAX_FILES = 64
"""Files one profile may be made of."""
ENDINGS = (".yaml", ".yml")
DEFAULT = "config.yaml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_WHY = {
    errno.ENOENT: ("no such file", "check the path"),
    errno.EACCES: ("permission denied", "run as root, or make it readable"),
    errno.EPERM: ("permission denied", "run as root, or make it readable"),
    errno.EISDIR: ("it is a directory", "name the file in it"),
    errno.ENOTDIR: ("a part of its path is not a directory", "check the path"),
    errno.ELOOP: ("its symbolic links form a loop", "check the links"),
    errno.ENAMETOOLONG: ("its path is too long", "check the path"),
}


def choose(
    config: str | None, name: str | None, environ: Mapping[str, str], directories: Directories
) -> tuple[str, str]:
    """Name and path of the profile: --config or --profile, else CONFIG or PROFILE from the environment, else
    CONFIG_DIR/config.yaml. Raises ProfileError."""
    if config and name:
        raise ProfileError(
            [Problem("--config", 0, "", config, "cannot be given together with --profile", "keep one of them")]
        )
    if config:
        return _stem(config), config
    if name:
        path = by_name(name, directories, Place("--profile"))
        return _stem(path), path
    given, _ = variable(environ, "CONFIG")
    if given:
        return _stem(given), given
    given, source = variable(environ, "PROFILE")
    if given:
        path = by_name(given, directories, Place(source))
        return _stem(path), path
    default = os.path.join(directories.config, DEFAULT)
    if os.path.exists(default):
        return _stem(default), default
    names = ", ".join(known(directories))
    raise ProfileError(
        [
            Problem(
                default,
                0,
                "",
                "",
                "cannot read profile: none was chosen and this file does not exist",
                f"add --profile with one of {names}, or --config FILE",
            )
        ]
    )


def known(directories: Directories) -> list[str]:
    """Names that --profile knows."""
    names = set()
    for directory in known_profile_directories(directories):
        try:
            found = os.listdir(directory)
        except OSError:
            continue
        names |= {_stem(file) for file in found if file.endswith(ENDINGS)}
    return sorted(names)


def by_name(name: str, directories: Directories, asked: Place, key: str = "", skip: tuple[str, ...] = ()) -> str:
    """The first file of that name, ``-`` and ``_`` being the same, whose real path is not in ``skip``.

    Skipping lets /etc/edge-agent/profiles/edge.yaml say ``extends: edge`` and mean the shipped one.
    """
    if not _NAME.fullmatch(name):
        raise ProfileError(
            [
                problem(
                    asked,
                    key,
                    name,
                    "not the name of a profile",
                    "give a path with --config FILE" if asked.line == 0 else "start a path with ./",
                )
            ]
        )
    skipped = ""
    for path in _candidates(name, directories):
        if os.path.exists(path):
            if os.path.realpath(path) not in skip:
                return path
            skipped = path
    if skipped:
        raise ProfileError(
            [problem(asked, key, name, "extends itself: " + " -> ".join([*skip, skipped]), "remove one of the extends")]
        )
    raise ProfileError([problem(asked, key, name, "unknown profile", suggest(name, known(directories)))])


def _candidates(name: str, directories: Directories) -> Iterator[str]:
    for directory in known_profile_directories(directories):
        for spelled in dict.fromkeys((name, name.replace("_", "-"), name.replace("-", "_"))):
            for ending in ENDINGS:
                yield os.path.join(directory, spelled + ending)


def read(path: str, asked: Place) -> bytes:
    """The contents of a regular file, at most one byte more than allowed. Raises ProfileError naming ``path``."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, "")
            if not stat.S_ISREG(mode):
                raise ProfileError(
                    [Problem(path, 0, "", "", "cannot read profile: it is not a regular file", "save it as a file")]
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        number = error.errno if isinstance(error, OSError) else errno.ENOENT
        why, fix = _WHY.get(number or 0, (str(error), ""))
        if asked.line:
            raise ProfileError([problem(asked, "extends", path, f"cannot read profile: {why}", fix)]) from None
        raise ProfileError([Problem(path, 0, "", "", f"cannot read profile: {why}", fix)]) from None


def load_tree(path: str, directories: Directories) -> tuple[Map, list[Problem]]:
    """The file at ``path`` over all that it extends, and the problems that leave a tree. Raises ProfileError."""
    return _Loader(directories).load(path, (), Place())


class _Loader:
    def __init__(self, directories: Directories) -> None:
        self.directories = directories
        self.files = 0
        self.problems: list[Problem] = []

    def load(self, path: str, chain: tuple[str, ...], asked: Place) -> tuple[Map, list[Problem]]:
        real = os.path.realpath(path)
        if real in chain:
            raise ProfileError(
                [
                    problem(
                        asked,
                        "extends",
                        path,
                        "extends itself: " + " -> ".join([*chain, real]),
                        "remove one of the extends",
                    )
                ]
            )
        self.files += 1
        if self.files > MAX_FILES:
            raise ProfileError(
                [problem(asked, "extends", path, f"more than {MAX_FILES} files make up this profile", "extend fewer")]
            )
        own, problems = parse(read(path, asked), path)
        self.problems += problems
        if not chain and not own.entries:
            raise ProfileError(
                [
                    Problem(
                        path,
                        0,
                        "",
                        "",
                        "the profile is empty: it has no services",
                        "see the shipped profiles for an example",
                    )
                ]
            )
        extends = own.entries.pop("extends", None)
        own.keys.pop("extends", None)
        merged: Map | None = None
        for base in self._bases(extends):
            below, _ = self.load(self._resolve(base, path, (*chain, real)), (*chain, real), base.place)
            merged = below if merged is None else merge(merged, below)
        return (own if merged is None else merge(merged, own)), self.problems

    def _bases(self, extends: Leaf | Map | Seq | None) -> list[Leaf]:
        if extends is None or (isinstance(extends, Leaf) and extends.null):
            return []
        items = extends.items if isinstance(extends, Seq) else [extends]
        leaves = [item for item in items if isinstance(item, Leaf) and item.text]
        if len(leaves) != len(items):
            raise ProfileError(
                [
                    problem(
                        extends.place,
                        "extends",
                        "",
                        "expected the name of a profile, a path, or a list of them",
                        "write extends: edge",
                    )
                ]
            )
        return leaves

    def _resolve(self, base: Leaf, path: str, chain: tuple[str, ...]) -> str:
        if "/" in base.text or base.text.endswith(ENDINGS):
            return os.path.normpath(os.path.join(os.path.dirname(path), base.text))
        return by_name(base.text, self.directories, base.place, "extends", chain)


def _stem(path: str) -> str:
    name = os.path.basename(path)
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)
