"""What the identity service answers, by a clock that the test sets; no process and no socket."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.peers.wire import unpack
from edge_agent.services import documents, identity, jws, requests, tokens
from edge_agent.services.identity import OVERLAP, OVERLAPS, Identity
from edge_agent.services.options import Options
from edge_agent.services.tokens import Clock

NOW = 1_800_000_000.0


class Rig:
    """A service, and what it is told of the time."""

    def __init__(self, home: Path) -> None:
        self.home, self.asked = home, 0
        self.now = Clock(NOW, "", 0.0, "boot", 50.0)
        self.start()

    def start(self) -> None:
        self.service = Identity(Options("identity", str(self.home), str(self.home / "run/bundled/identity")))
        self.service.clock = lambda floor: self.now._replace(floor=floor)
        self.service.open(None)  # type: ignore[arg-type] # it asks nothing of it

    def ask(self, op: str, user: str = f"uid:{os.geteuid()}", **arguments: Any) -> dict[str, Any]:
        """The answer, or the error as {code, why, fix}."""
        answers: list[bytes] = []
        request = requests.Request({"v": 1, "id": 1, "op": op, **arguments}, user, answers.append)
        requests.perform(request, self.service.operations())
        answer = unpack(answers[0], 2**20)
        error: dict[str, Any] = answer.get("error", answer)
        return error

    def document(self) -> documents.Document:
        return documents.parse(self.ask("document")["document"])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    tmp_path.chmod(0o700)
    return Rig(tmp_path)


def test_at_rest_it_has_nothing_to_wait_for(rig: Rig) -> None:
    assert rig.service.deadline() is None
    rig.ask("rotate")
    assert rig.service.deadline() is not None


def test_an_overlap_ends_by_a_clock_that_is_believed(rig: Rig) -> None:
    rig.ask("rotate", overlap=10_000)
    old = rig.document().previous[0]
    assert old.until == int(NOW) + 10_000
    rig.now = rig.now._replace(wall=NOW + 9_999)
    rig.service.tick(time.monotonic())
    assert rig.document().sequence == 2
    rig.now = rig.now._replace(wall=NOW + 10_000)
    rig.service.tick(time.monotonic())
    assert rig.document().previous == ()
    assert rig.document().sequence == 3
    assert rig.service.deadline() is None


def test_in_doubt_it_ends_after_so_long_a_run_and_not_before(rig: Rig) -> None:
    rig.now = rig.now._replace(wall=0.0, doubt="it is 1970")
    rig.ask("rotate")
    assert (rig.document().previous[0].until, rig.document().issued) == (0, 0)
    rig.now = rig.now._replace(wall=9e9)
    began = time.monotonic()
    rig.service.tick(began + OVERLAP - 10)
    assert len(rig.document().previous) == 1
    rig.start()  # a restart begins to count anew: too long is safe, too short is not
    rig.service.tick(time.monotonic() + OVERLAP - 10)
    assert len(rig.document().previous) == 1
    rig.service.tick(time.monotonic() + OVERLAP + 10)
    assert rig.document().previous == ()


def test_no_token_outlives_the_overlap_of_its_key(rig: Rig) -> None:
    assert OVERLAPS[0] >= tokens.MAX_LIFETIME + 2 * tokens.LEEWAY
    assert rig.ask("rotate", overlap=OVERLAPS[0] - 1)["code"] == "bad-request"
    token = rig.ask("token", audience="storage", lifetime=tokens.MAX_LIFETIME)["token"]
    rig.ask("rotate", overlap=OVERLAPS[0])
    rig.now = rig.now._replace(wall=NOW + tokens.MAX_LIFETIME + tokens.LEEWAY - 1, boot="another")
    rig.service.tick(time.monotonic())
    assert rig.ask("check", token=token, audience="storage")["valid"] is True
    rig.now = rig.now._replace(wall=NOW + OVERLAPS[0])
    rig.service.tick(time.monotonic())
    assert rig.ask("check", token=token, audience="storage")["code"] == "unknown-key"


def test_a_token_of_a_node_in_1970_is_valid_here_and_by_a_challenge(rig: Rig) -> None:
    rig.now = Clock(100.0, "it is 1970", 0.0, "boot", 50.0)
    answer = rig.ask("token", audience="storage")
    assert answer["doubt"] == "it is 1970"
    assert rig.ask("check", token=answer["token"], audience="storage")["valid"] is True, "the same boot"
    rig.now = rig.now._replace(boot="the next", up=1.0)
    refused = rig.ask("check", token=answer["token"], audience="storage")
    assert (refused["code"], refused["valid"]) == ("expired", False)
    nonce = rig.ask("challenge")["nonce"]
    token = rig.ask("token", audience="storage", nonce=nonce)["token"]
    rig.now = rig.now._replace(wall=NOW)  # somebody sets the clock
    assert rig.ask("check", token=token, audience="storage")["valid"] is True


def test_its_own_document_is_a_time_that_has_passed(rig: Rig) -> None:
    floors: list[float] = []

    def clock(floor: float) -> Clock:
        floors.append(floor)
        return rig.now

    rig.service.clock = clock
    rig.ask("challenge")
    assert floors == [NOW]


def test_only_the_owner_changes_keys_and_a_service_its_own(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"edge-agent-node": 4242}

    class Account:
        def __init__(self, name: str) -> None:
            self.pw_uid = users[name]

    monkeypatch.setattr(pwd, "getpwnam", Account)
    for user in ("uid:4242", "uid:4243", "k" * 40):
        assert rig.ask("rotate", user)["code"] == "denied"
        assert rig.ask("revoke", user, key="x")["code"] == "denied"
        assert rig.ask("enrol", user, service="storage", keys=["a" * 40])["code"] == "denied"
    assert "document" in rig.ask("enrol", "uid:4242", service="node", keys=["a" * 40])
    assert rig.ask("enrol", "uid:4243", service="node", keys=["a" * 40])["code"] == "denied"
    assert rig.document().services == {"node": ("a" * 40,)}


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("token", {}),
        ("token", {"audience": ""}),
        ("token", {"audience": "x" * 129}),
        ("token", {"audience": "a", "lifetime": 0}),
        ("token", {"audience": "a", "lifetime": 3601}),
        ("token", {"audience": "a", "scope": 5}),
        ("token", {"audience": "a", "nonce": "\n"}),
        ("check", {"token": b"x", "audience": "a"}),
        ("check", {"token": "x", "audience": "a", "document": 5}),
        ("revoke", {"key": ["x"]}),
        ("revoke", {"key": "x" * 44}),
        ("revoke", {"key": "x", "reason": "x" * 65}),
        ("enrol", {"service": "node", "keys": "x"}),
        ("enrol", {"service": "node", "keys": [5]}),
        ("enrol", {"service": "node", "keys": ["a" * 40] * 2}),
        ("enrol", {"service": "", "keys": ["a" * 40]}),
        ("rotate", {"overlap": -1}),
        ("rotate", {"overlap": 1.5}),
    ],
)
def test_arguments_of_another_form_are_refused(rig: Rig, op: str, arguments: dict[str, Any]) -> None:
    assert rig.ask(op, **arguments)["code"] == "bad-request"
    assert rig.document().sequence == 1


def test_a_disk_that_is_full_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    before = rig.document()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = rig.ask("rotate")
        assert answer["code"] == "failed"
        assert "No space left on device" in answer["why"]
        assert rig.ask("enrol", service="node", keys=["a" * 40])["code"] == "failed"
    assert rig.document() == before
    token = rig.ask("token", audience="a")["token"]
    assert rig.ask("check", token=token, audience="a")["valid"] is True
    rig.start()
    assert rig.document() == before
    assert rig.ask("rotate")["ok"] is True


def test_without_its_key_a_copied_document_is_useless(rig: Rig, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(0o700)
    shutil.copy(rig.home / "identity.document", other / "identity.document")
    with pytest.raises(Exception, match="secret of its current key is missing"):
        Rig(other)


def test_the_clock_of_this_machine_is_told_with_a_reason() -> None:
    clock = identity._clock(0.0)
    assert abs(clock.wall - time.time()) < 5
    assert len(clock.boot) == 36
    assert abs(clock.up - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5
    assert identity._clock(time.time() + 1000).doubt.startswith("the clock of this machine is behind")
    assert jws.BEGINNING == b"eyJ"
