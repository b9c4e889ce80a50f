"""``check --fix``: change the line that the machine boots with, so that the kernel can enforce; with leave, and a copy.

A Raspberry Pi's ``cmdline.txt`` is changed here. GRUB's file is a shell script whose change takes another command to
have an effect, so there it is told what to write.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from .. import bootline
from ..demand import Facts
from ..host.journal import sync_directory
from ..records import Record
from . import exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

PLACES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
"""Raspberry Pi OS since bookworm, and before."""

GRUB = "/etc/default/grub"
REBOOT = "a reboot is needed before it has an effect: `reboot`, then `edge-agent check`"


class Outcome(Record):
    """``code``: of exits. ``lines``: for people. The rest as in JSON: what file, what words, whether it was written."""

    code: int
    lines: tuple[str, ...]
    file: str = ""
    added: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    changed: bool = False
    backup: str = ""

    def as_json(self) -> dict[str, Any]:
        """Everything but the lines and the code."""
        return {name: value for name, value in self._asdict().items() if name not in ("code", "lines")}


def repair(
    facts: Facts,
    file: str | None,
    agree: Callable[[Sequence[str]], str],
    *,
    places: Sequence[str] = PLACES,
    grub: str = GRUB,
) -> Outcome:
    """Do what the machine needs. ``file``: instead of the places. ``agree``: shown the change, '' or why not."""
    words = bootline.needed(facts)
    if not words:
        return Outcome(exits.OK, ("nothing to fix: the kernel's command line takes no limit away",))
    path = file or next((place for place in places if os.path.exists(place)), "")
    if not path:
        return _advise(words, grub)
    path = os.path.realpath(path)  # a link stays one, and what it leads to is changed
    try:
        content = _read(path)
        change = bootline.fix(content, words)
    except OSError as error:
        return _refuse(path, error)
    except bootline.BootLineError as error:
        fix = f"write the kernel's command line there by hand, one line, with {_text(words)}"
        return Outcome(exits.FAILED, (f"cannot change {path}: {error}; fix: {fix}",), path)
    if change.after == change.before:
        return Outcome(exits.OK, (f"{path} says it already: {_text(words)}", REBOOT), path)
    ((before, after),) = bootline.changed_lines(change)
    why_not = agree((path, f"- {_shown(before)}", f"+ {_shown(after)}"))
    if why_not:
        return Outcome(exits.FAILED, (f"{path} is not changed: {why_not}",), path, change.added, change.removed)
    try:
        if _read(path) != content:
            said = f"cannot change {path}: it has changed meanwhile; fix: run `edge-agent check --fix` again"
            return Outcome(exits.FAILED, (said,), path)
        backup = _keep(path, content)
        _replace(path, change.after)
    except OSError as error:
        return _refuse(path, error)
    lines = (f"{path} is changed; as it was: {backup}", REBOOT)
    return Outcome(exits.OK, lines, path, change.added, change.removed, True, backup)


def ask(lines: Sequence[str], *, yes: bool, quiet: bool) -> str:
    """Show the change and ask the person at the terminal; '' is leave."""
    show = sys.stderr if quiet else sys.stdout
    show.write("".join(line + "\n" for line in lines))
    show.flush()
    if yes:
        return ""
    if not sys.stdin.isatty():
        return "there is no terminal to ask; fix: give --yes"
    show.write("change it? [y/N] ")
    show.flush()
    return "" if sys.stdin.readline().strip().lower() in ("y", "yes") else "you did not say yes"


def _advise(words: tuple[bytes, ...], grub: str) -> Outcome:
    """What to write where, for a machine whose boot loader is not changed here."""
    what = f"have {_text(words)} on the kernel's command line, the way this machine's boot loader has it, and reboot"
    if bootline.MEMORY in words:
        what = f"take cgroup_disable=memory out, and {what}"
    try:
        change = bootline.fix_grub(_read(grub), words)
    except (OSError, bootline.BootLineError):
        said = f"cannot change the kernel's command line: no {' or '.join(PLACES)} here; fix: {what}"
        return Outcome(exits.FAILED, (said,))
    lines = [f"cannot change {grub}: GRUB has to be told as well; fix: as root, write there"]
    for before, after in bootline.changed_lines(change):
        lines += [f"- {_shown(before)}", f"+ {_shown(after)}"]
    lines.append("then `update-grub && reboot`")
    if change.after == change.before:
        lines = [f"{grub} is not what takes the limits away; fix: `update-grub && reboot` if it is new, else {what}"]
    return Outcome(exits.FAILED, tuple(lines), grub, change.added, change.removed)


def _refuse(path: str, error: OSError) -> Outcome:
    code, fix = exits.FAILED, "name the file with --cmdline"
    if isinstance(error, PermissionError):
        code, fix = exits.PERMISSION, "run it as root"
    elif error.errno == errno.EROFS:
        fix = f"`mount -o remount,rw {os.path.dirname(path)}`"
    elif error.errno == errno.ENOSPC:
        fix = f"make room in {os.path.dirname(path)}"
    return Outcome(code, (f"cannot change {path}: {error.strerror}; fix: {fix}",), path)


def _read(path: str) -> bytes:
    """A little more than a command line can be. Raises OSError, for what is no regular file as well."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        return file.read(1 << 20)


def _keep(path: str, content: bytes) -> str:
    """A copy beside it, under a name that nothing has yet; one with the same content will do."""
    number = 0
    while True:
        name = f"{path}.bak{number or ''}"
        try:
            if _read(name) == content:
                return name
        except FileNotFoundError:
            _write(name, content, path)
            sync_directory(os.path.dirname(name))
            return name
        except OSError:
            pass  # something else has this name
        number += 1


def _replace(path: str, content: bytes) -> None:
    """By rename(2), through to the disk: a power cut leaves the old line or the new one, never none."""
    temporary = path + ".new"
    _write(temporary, content, path, fresh=False)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def _write(path: str, content: bytes, like: str, *, fresh: bool = True) -> None:
    kind = os.stat(like)
    how = os.O_EXCL if fresh else os.O_TRUNC
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how, stat.S_IMODE(kind.st_mode))
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            try:
                os.fchown(fd, kind.st_uid, kind.st_gid)
                os.fchmod(fd, stat.S_IMODE(kind.st_mode))
            except PermissionError:
                pass  # FAT has no owners and modes of files
            os.fsync(fd)
    except OSError:
        os.unlink(path)  # half of it is of no use to anybody
        raise


def _text(words: Sequence[bytes]) -> str:
    return b" ".join(words).decode()


def _shown(line: bytes) -> str:
    """Without what would move the terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.decode("utf-8", "replace"))
