"""``sandbox:`` in a profile, and what the bundled services have without being asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from edge_agent.demand import Profile
from edge_agent.model import Sandbox
from edge_agent.profile import Directories, load
from edge_agent.profile.system import Account, Machine
from edge_agent.text import CAPABILITIES

from .profiles import HOME, FakeSystem, load_text, service

STRICT = Sandbox(
    no_new_privileges=True,
    capabilities=(),
    read_only=True,
    private_tmp=True,
    private_devices=True,
    protect_home=True,
    required=True,
)


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("sandbox: strict", STRICT),
        ("sandbox: none", Sandbox()),
        ("sandbox: {}", STRICT),
        ("sandbox: {required: false}", STRICT._replace(required=False)),
        ("sandbox: {private_tmp: false}", STRICT._replace(private_tmp=False)),
        ("sandbox: {capabilities: [CAP_SYS_TIME, net_bind_service]}", STRICT._replace(capabilities=(10, 25))),
        ("sandbox: {capabilities: all}", STRICT._replace(capabilities=None)),
        ("sandbox: {writable: [/srv/a/, /srv/./b]}", STRICT._replace(writable=("/srv/a", "/srv/b"))),
        ("sandbox: {visible: /home/pi}", STRICT._replace(visible=("/home/pi",))),
        ("nice: 1", Sandbox()),
    ],
)
def test_what_is_written_is_what_is_planned(written: str, made: Sandbox) -> None:
    assert service(written).service.sandbox == made


def test_the_capabilities_have_their_numbers() -> None:
    """linux/capability.h: a few from the beginning, the middle and the end."""
    numbers = {"chown": 0, "setpcap": 8, "net_bind_service": 10, "sys_admin": 21, "sys_time": 25, "mknod": 27}
    numbers |= {"setfcap": 31, "syslog": 34, "bpf": 39, "checkpoint_restore": 40}
    assert {name: CAPABILITIES.index(name) for name in numbers} == numbers
    assert len(set(CAPABILITIES)) == len(CAPABILITIES) == 41


def test_what_is_shown_in_a_hidden_place_may_be_used() -> None:
    text = "services: {s: {command: /home/pi/run, working_directory: /tmp/x, "
    text += "sandbox: {visible: /home/pi, writable: /tmp/x}}}"
    assert load_text(text).demands[0].service.argv == ("/home/pi/run",)


def test_a_disabled_service_is_not_looked_at() -> None:
    text = "services: {s: {command: run, enabled: false, sandbox: {writable: /nonsuch}}}"
    assert load_text(text).demands[0].service.sandbox == Sandbox()


class Elsewhere(FakeSystem):
    """A checkout in somebody's home, which nobody else may enter, and no users of the package's."""

    homes = ("/usr", "/home/pi/edge-agent/.venv", "/home/pi/edge-agent")
    users: ClassVar[dict[str, int]] = {}
    closed = ("/home/pi/edge-agent/.venv", "/home/pi/edge-agent")

    def reaches(self, account: Account, path: str) -> bool:
        del account
        return path not in self.closed


class Installed(FakeSystem):
    users: ClassVar[dict[str, int]] = {}


class Closed(Elsewhere):
    users: ClassVar[dict[str, int]] = FakeSystem.users


class Person(FakeSystem):
    def own_account(self) -> Account:
        return Account("pi", 1000, 1000, (), "/home/pi")


def on(system: FakeSystem, text: str, tmp_path: Path, directories: Directories = HOME) -> Profile:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    environ: Mapping[str, str] = {}
    return load(config=str(path), name=None, flags={}, environ=environ, directories=directories, system=system)


BUNDLED = "services: {identity: , storage: {user: redis}, node: }"


def test_bundled_services_have_all_of_it_and_users_of_their_own(tmp_path: Path) -> None:
    profile = on(FakeSystem(), BUNDLED, tmp_path)
    made = {each.service.name: each.service for each in profile.demands}
    assert {each.sandbox for each in made.values()} == {STRICT._replace(required=False)}
    assert {name: each.uid for name, each in made.items()} == {"identity": 901, "storage": 101, "node": 903}
    assert made["identity"].groups == (7,)
    assert ("USER", "edge-agent-identity") in made["identity"].env
    assert profile.notes == ()


def test_without_those_users_they_run_as_the_agent_and_that_is_said(tmp_path: Path) -> None:
    profile = on(Installed(), "services: {identity: , node: }", tmp_path)
    assert {each.service.uid for each in profile.demands} == {None}
    assert profile.notes == (
        (
            "identity, node run as root, whom a sandbox holds less well: they have no users edge-agent-NAME; "
            "fix: useradd --system --no-create-home edge-agent-NAME for each"
        ),
    )


def test_a_checkout_in_a_closed_home_stays_usable(tmp_path: Path) -> None:
    for system in (Elsewhere(), Closed()):
        profile = on(system, "services: {identity: }", tmp_path)
        made = profile.demands[0].service
        assert made.uid is None
        assert made.sandbox.capabilities == (2,)
        assert made.sandbox.visible == ("/home/pi/edge-agent/.venv", "/home/pi/edge-agent")
        assert len(profile.notes) == 2
        assert "keeps CAP_DAC_READ_SEARCH: root needs it to enter /home/pi/edge-agent/.venv" in profile.notes[1]
    assert "may not enter /home/pi/edge-agent/.venv; fix: chmod o+x" in profile.notes[0]


def test_a_person_starts_them_as_themselves(tmp_path: Path) -> None:
    profile = on(Person(), BUNDLED.replace("{user: redis}", ""), tmp_path)
    assert {each.service.uid for each in profile.demands} == {None}
    assert profile.notes == ()


def test_what_is_asked_of_a_bundled_service_is_required(tmp_path: Path) -> None:
    text = "services: {identity: {sandbox: strict}, storage: {sandbox: none}, node: {sandbox: {read_only: false}}}"
    made = [each.service.sandbox for each in on(FakeSystem(), text, tmp_path).demands]
    assert made == [STRICT, Sandbox(), STRICT._replace(read_only=False)]


def test_directories_in_hidden_places_are_shown_to_a_bundled_service(tmp_path: Path) -> None:
    directories = Directories("/etc/x", "/tmp/x/data", "/tmp/x/run", "/tmp/x/log")
    made = on(FakeSystem(), "services: {identity: }", tmp_path, directories).demands[0].service
    assert made.sandbox.visible == ("/tmp/x/data", "/tmp/x/run")


def test_who_may_enter_a_directory(tmp_path: Path) -> None:
    machine = Machine()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    owner = tmp_path.stat()
    own, member = Account("", owner.st_uid, 1, (), "/"), Account("", 4242, 1, (owner.st_gid,), "/")
    other = Account("", 4242, 4242, (), "/")
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o011)
    for mode, answers in ((0o700, (True, False, False)), (0o710, (True, True, False)), (0o011, (False, True, True))):
        (tmp_path / "a").chmod(mode)
        seen = tuple(machine.reaches(account, str(inner / "new")) for account in (own, member, other))
        (tmp_path / "a").chmod(0o755)
        assert seen == answers, oct(mode)


def test_this_machine_knows_where_its_program_is() -> None:
    assert all(Path(path).is_dir() for path in Machine.homes)
    assert Path(__file__).is_relative_to(Machine.homes[-1])
