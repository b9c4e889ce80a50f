"""What the tests of profiles share: a machine of their own, and loading from a text."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from edge_agent.demand import Demand, Profile
from edge_agent.profile import Directories, ProfileError, load
from edge_agent.profile.system import Account

HOME = Directories("/etc/edge-agent", "/var/lib/edge-agent", "/run/edge-agent", "/var/log/edge-agent")
FILE = "p.yaml"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "profiles"


class FakeSystem:
    """Every program is in /usr/bin but ``nonsuch``; users are root, redis, mosquitto and nobody."""

    python = "/usr/bin/python3"
    homes: tuple[str, ...] = ("/usr", "/usr/lib/edge-agent")
    users: ClassVar[dict[str, int]] = {
        "redis": 101,
        "mosquitto": 102,
        "nobody": 65534,
        "edge-agent-identity": 901,
        "edge-agent-storage": 902,
        "edge-agent-node": 903,
        "edge-agent-ledger": 904,
        "edge-agent-embedded": 909,
    }

    def account(self, user: str) -> Account | None:
        uid = self.users.get(user)
        return None if uid is None else Account(user, uid, uid, (7,), f"/home/{user}")

    def own_account(self) -> Account:
        return Account("root", 0, 0, (), "/root")

    def group(self, group: str) -> int | None:
        return int(group) if group.isdigit() else {"video": 44}.get(group)

    def program(self, word: str, path: str, directory: str) -> str | None:
        if "nonsuch" in word:
            return None
        return (
            f"{directory}/{word}"
            if "/" in word and not word.startswith("/")
            else word
            if "/" in word
            else f"/usr/bin/{word}"
        )

    def is_directory(self, path: str) -> bool:
        return "nonsuch" not in path

    def exists(self, path: str) -> bool:
        return "nonsuch" not in path

    def reaches(self, account: Account, path: str) -> bool:
        return True


def load_file(
    path: Path,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    directories: Directories = HOME,
) -> Profile:
    """The profile in a file, on the fake machine."""
    return load(
        config=str(path),
        name=None,
        flags=flags or {},
        environ=environ or {},
        directories=directories,
        system=FakeSystem(),
    )


def load_text(
    text: str | bytes, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Profile:
    """The profile in a text, on the fake machine."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, FILE)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_file(path, flags, environ)


def service(keys: str, **settings: Mapping[str, str]) -> Demand:
    """The one service ``s`` that runs ``run`` and has ``keys``, in YAML flow style without braces."""
    return load_text("services: {s: {command: run, " + keys + "}}", **settings).demands[0]


def problems(
    text: str | bytes, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    """The messages a text gets, its path shortened to ``p.yaml``. Fails when it loads."""
    try:
        load_text(text, flags, environ)
    except ProfileError as error:
        return [each._replace(file=Path(each.file).name).text() for each in error.problems]
    raise AssertionError("the profile loads")


def cases(name: str) -> list[tuple[str, str]]:
    """Texts with their messages, from a file that explains itself in its first line."""
    blocks = (FIXTURES / name).read_text().split("\n%\n")[1:]
    pairs = [block.rstrip("\n").rpartition("\n=> ") for block in blocks]
    return [(text, message) for text, _, message in pairs]
