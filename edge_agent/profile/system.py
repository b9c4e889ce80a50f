"""The door to accounts and programs of the machine a profile is read on. Tests stand in their own."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import Protocol

from ..host.interpreter import interpreter
from ..records import Record

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Account(Record):
    """Who a service runs as."""

    name: str  # '' for a number without an account
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary
    home: str


class System(Protocol):
    """What has to be asked of the machine."""

    python: str  # what runs the bundled services by ``-m``
    homes: tuple[str, ...]  # directories that hold it and what it imports

    def account(self, user: str) -> Account | None:
        """The account of a name or a number."""

    def own_account(self) -> Account:
        """The account this process runs as."""

    def group(self, group: str) -> int | None:
        """The gid of a name or a number."""

    def program(self, word: str, path: str, directory: str) -> str | None:
        """The absolute path of an executable file: ``word`` below ``directory`` if it has a slash, else found in
        ``path``, as execvp(3) would after chdir(2)."""

    def is_directory(self, path: str) -> bool:
        """Whether a directory is there."""

    def exists(self, path: str) -> bool:
        """Whether anything is there."""

    def reaches(self, account: Account, path: str) -> bool:
        """Whether the account may enter the directory ``path`` and all above it, without any capability."""


class Machine:
    """This machine."""

    python = interpreter()
    homes = tuple(dict.fromkeys((sys.base_prefix, sys.prefix, str(Path(__file__).parents[2]))))

    def account(self, user: str) -> Account | None:
        """By getpwnam(3) or getpwuid(3); a number need not have an account, its group then is its own number."""
        try:
            entry = pwd.getpwuid(int(user)) if user.isascii() and user.isdigit() else pwd.getpwnam(user)
        except (KeyError, OverflowError, ValueError):
            return None
        return _account(entry)

    def own_account(self) -> Account:
        """By the effective user id."""
        uid = os.geteuid()
        try:
            return _account(pwd.getpwuid(uid))
        except KeyError:
            return Account("", uid, os.getegid(), (), "/")

    def group(self, group: str) -> int | None:
        """By getgrnam(3), or the number itself."""
        if group.isascii() and group.isdigit() and len(group) <= 10 and int(group) < 2**32 - 1:
            return int(group)
        try:
            return grp.getgrnam(group).gr_gid
        except (KeyError, ValueError):
            return None

    def program(self, word: str, path: str, directory: str) -> str | None:
        """Any execute bit counts: whose it must be is known only to the kernel."""
        candidates = (
            [os.path.join(directory, word)]
            if "/" in word
            else [os.path.join(part or directory, word) for part in path.split(":")]
        )
        return next((each for each in candidates if _executable(each)), None)

    def is_directory(self, path: str) -> bool:
        """Follows symbolic links."""
        return os.path.isdir(path)

    def exists(self, path: str) -> bool:
        """Follows symbolic links."""
        return os.path.exists(path)

    def reaches(self, account: Account, path: str) -> bool:
        """By the mode bits of what exists of the way; access control lists are not looked at."""
        way, below = os.path.realpath(path), ""
        while way != below:
            try:
                found = os.stat(way)
            except OSError:
                pass  # it will be made
            else:
                bit = 0o100 if found.st_uid == account.uid else 0o010 if found.st_gid in _gids(account) else 0o001
                if not found.st_mode & bit:
                    return False
            way, below = os.path.dirname(way), way
        return True


def _account(entry: pwd.struct_passwd) -> Account:
    groups = tuple(gid for gid in os.getgrouplist(entry.pw_name, entry.pw_gid) if gid != entry.pw_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def _gids(account: Account) -> tuple[int, ...]:
    return account.gid, *account.groups


def _executable(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)
