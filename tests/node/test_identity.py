"""The identity service as a real process: tokens, rotations over a kill, revocation, sealed keys, who may do what."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.services import clock, documents, jws, tokens
from edge_agent.services.client import Identity, ServiceError, Storage
from tests.node.bundled import Running, free_port, until
from tests.node.harness import CLI

Start = Callable[..., Running]
FIXTURES = Path(__file__).parents[1] / "fixtures/identity"


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    running: list[Running] = []

    def run(at: Path = base, **options: Any) -> Running:
        running.append(Running("identity", at, **options).ready())
        return running[-1]

    yield run
    for service in running:
        service.__exit__(None, None, None)


def call(service: Running) -> Identity:
    return Identity.local(str(service.run))


def test_a_token_is_for_one_audience_and_verified_without_the_service(start: Start) -> None:
    service = start(node_id="kitchen")
    with call(service) as identity:
        token = identity.token("storage", subject="camera", scope="read write", lifetime=60)
        answer = identity.check(token, "storage")
        assert answer["valid"] is True
        assert (answer["claims"]["subject"], answer["claims"]["issuer"]) == ("camera", "kitchen")
        assert identity.check(token, "node")["code"] == "audience"
        document = documents.parse(identity.document())
        doubt = identity.health()["doubt"]
    here = tokens.Clock(0.0, "it is 1970", boot=clock.boot(), up=clock.steady())
    claims = tokens.verify(token, document.issuer(here), "storage", here)
    assert claims.allows("write"), "on the same boot the wall clock does not matter"
    elsewhere = tokens.Clock(claims.issued + 1.0)
    assert doubt or tokens.verify(token, document.issuer(elsewhere), "storage", elsewhere)
    with pytest.raises(tokens.TokenError, match="bound to a challenge"):
        tokens.verify(token, document.issuer(here), "storage", here._replace(boot="another"))


def test_a_challenge_is_answered_by_another_node_once(start: Start, base: Path) -> None:
    (base / "other").mkdir()
    verifier, other = start(), start(base / "other")
    with call(verifier) as here, call(other) as there:
        document, pinned = there.document(), documents.parse(there.document()).current
        nonce = here.challenge()
        token = there.token("here", nonce=nonce, lifetime=30)
        assert here.check(token, "here", document, pinned)["valid"] is True
        assert here.check(token, "here", document, pinned)["code"] == "challenge"
        assert here.check(there.token("here", nonce="x" * 43), "here", document, pinned)["code"] == "challenge"
        assert here.check(here.token("here"), "here", document, pinned)["code"] == "unknown-key"
        with pytest.raises(ServiceError, match="pinned key") as caught:
            here.check(token, "here", document, bytes(32))
        assert caught.value.code == "unknown-key"


def test_a_rotation_outlives_a_kill_and_tokens_of_before_stay_valid(start: Start) -> None:
    service = start()
    with call(service) as identity:
        first = documents.parse(identity.document())
        token = identity.token("storage")
        second = documents.parse(identity.rotate())
        documents.update(first, second)
        assert (second.current, second.previous[0].key) == (first.next, first.current)
        assert identity.check(token, "storage")["valid"] is True
        signature = identity.sign(b"x")
        assert jws.verifies(second.current, b"x", signature)
    service.stop(signal.SIGKILL)
    again = start()
    with call(again) as identity:
        third = documents.parse(identity.document())
        assert third == second
        documents.follow(third, first.current)
        assert identity.check(token, "storage")["valid"] is True
        fourth = documents.parse(identity.rotate())
        documents.update(first, fourth)
        assert identity.public()["node_id"] == first.node, "its name does not change with its key"
    assert {entry.name for entry in again.data.iterdir()} == {
        *("identity.key", "identity-next.key", "identity.document", "identity.lock")
    }


def test_what_a_revoked_key_has_signed_is_refused_at_once(start: Start) -> None:
    service = start()
    with call(service) as identity:
        before = documents.parse(identity.document())
        token = identity.token("storage")
        after = documents.parse(identity.revoke(jws.encode(before.current), "stolen"))
        assert after.current == before.next
        assert identity.check(token, "storage")["code"] == "unknown-key"
        assert identity.check(identity.token("storage"), "storage")["valid"] is True
        with pytest.raises(ServiceError, match="revoked already"):
            identity.revoke(jws.encode(before.current))
    service.stop()
    with call(start()) as identity:
        assert documents.parse(identity.document()) == after


def test_the_curve_keys_of_services_are_in_the_document(start: Start) -> None:
    with call(start()) as identity:
        document = documents.parse(identity.enrol("node", "a" * 40, "b" * 40))
        assert document.services == {"node": ("a" * 40, "b" * 40)}
        assert documents.parse(identity.revoke("a" * 40)).services == {"node": ("b" * 40,)}
        with pytest.raises(ServiceError, match="revoked"):
            identity.enrol("node", "a" * 40)


def test_it_does_not_sign_what_looks_like_a_token_or_a_document(start: Start) -> None:
    with call(start()) as identity:
        document = documents.parse(identity.document())
        header = jws.sign({}, tokens.TYP, jws.Signer(bytes(32))).split(".")[0]
        for data in (f"{header}.e30".encode(), documents.LINK + document.current + bytes(32)):
            with pytest.raises(ServiceError, match="sign its digest") as caught:
                identity.sign(data)
            assert caught.value.code == "reserved"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_its_group_gets_tokens_and_changes_no_key(start: Start, base: Path) -> None:
    service = start()
    base.chmod(0o755)
    for part in (base / "run", service.run):
        part.chmod(0o755)
    asking = (
        "import os, sys\n"
        "from edge_agent.services.client import Identity, ServiceError, Storage\n"
        "os.setgroups([]); os.setgid(0); os.setuid(12345)\n"
        "identity = Identity.local(sys.argv[1])\n"
        "assert identity.check(identity.token('a'), 'a')['valid']\n"
        "for change in (identity.rotate, lambda: identity.revoke('x'), lambda: identity.enrol('node', 'a' * 40)):\n"
        "    try: change()\n"
        "    except ServiceError as error: assert error.code == 'denied', error\n"
        "    else: sys.exit(3)\n"
        "sys.exit(42)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-c", asking, str(service.run)]
    assert subprocess.run(argv, env=environ, timeout=30, check=False).returncode == 42
    with call(service) as identity:
        assert identity.health()["sequence"] == 1


def test_keys_are_sealed_by_a_credential_and_say_when_it_is_missing(start: Start, base: Path) -> None:
    plain = start()
    with call(plain) as identity:
        document = identity.document()
        assert identity.health()["sealed"] is False
    plain.stop()
    credentials = base / "credentials"
    credentials.mkdir(0o700)
    (credentials / "edge-agent.identity").write_bytes(os.urandom(32))
    (credentials / "edge-agent.identity").chmod(0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    sealed = start(environ=environ)
    with call(sealed) as identity:
        assert identity.health()["sealed"] is True
        assert identity.document() == document
        rotated = identity.rotate()
    sealed.stop()
    assert all(
        b"ed25519-sealed " in (sealed.data / name).read_bytes() for name in ("identity.key", "identity-next.key")
    )
    with Running("identity", base) as without:
        assert without.process.wait(20) == 78
        assert "it is sealed, and there is no credential" in without.log.read_text()
    with call(start(environ=environ)) as identity:
        assert identity.document() == rotated


def test_the_key_of_an_earlier_release_keeps_its_node(start: Start, base: Path) -> None:
    data = base / "data/identity"
    data.mkdir(0o700, parents=True)
    shutil.copy(FIXTURES / "identity.key-0.1.0", data / "identity.key")
    (data / "identity.key").chmod(0o600)
    with call(start()) as identity:
        public = identity.public()
    assert public == {
        "node_id": "node-03a107bff3ce10be",
        "ed25519": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
        "created": 1_764_030_000,
    }


# -- CURVE keys of services


def test_a_service_enrols_its_keys_and_the_announced_one_follows(start: Start, base: Path) -> None:
    service = start()
    with call(service) as identity:

        def keys() -> tuple[str, ...]:
            return documents.parse(identity.document()).services.get("storage", ())

        assert keys() == ()
        with Running("storage", base, port=free_port()).ready() as storage:
            until(lambda: len(keys()) == 2, "storage is in the document")
            first, after = keys()
            assert f"its own key is {first}" in storage.log.read_text()
            with Storage.local(str(storage.run)) as client:
                assert client.ask("rekey")["keys"] == [after]
                with pytest.raises(ServiceError, match="has no CURVE key"):
                    client.ask("rekey")
            assert keys() == (first, after), "until it is started again"
            storage.stop()
        with Running("storage", base, port=free_port()).ready() as storage:
            until(lambda: keys()[0] == after, "the announced key has followed")
            assert keys()[1] not in (first, after)
            identity.revoke(after, "lost")
            assert keys() == (keys()[0],)
            storage.stop()
        with Running("storage", base, port=free_port()).ready() as storage:
            until(lambda: "is not in the identity document" in storage.log.read_text(), "a revoked key is said")


def test_the_port_of_identity_itself_is_in_the_document(start: Start) -> None:
    service = start(port=free_port())
    with call(service) as identity:
        document = documents.parse(identity.document())
    key = document.services["identity"][0]
    assert f"its own key is {key}" in service.log.read_text()
    service.stop()
    again = start(port=free_port())
    with call(again) as identity:
        assert documents.parse(identity.document()) == document, "a start by itself changes nothing"
        identity.revoke(key)
    again.stop()
    last = start(port=free_port())  # it runs all the same
    assert "a key of identity is revoked; fix: edge-agent identity rotate --service identity" in last.log.read_text()


def test_a_service_without_identity_beside_it_starts_all_the_same(base: Path) -> None:
    with Running("storage", base, port=free_port()).ready() as storage:
        assert "identity" not in storage.log.read_text()


# -- the command


@pytest.fixture
def command(start: Start, base: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``command(words)``: ``edge-agent identity`` beside a service that runs where an agent has it."""
    run = base / "run/bundled/identity"
    run.mkdir(parents=True)
    start(run_dir=str(run), node_id="kitchen")
    environ = {"PATH": os.environ["PATH"], "EDGE_AGENT_RUN_DIR": str(base / "run"), "HOME": str(base)}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [*CLI, "identity", *words]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)

    return call


Command = Callable[..., subprocess.CompletedProcess[str]]


def test_the_command_shows_rotates_and_revokes(command: Command) -> None:
    shown = json.loads(command("--json").stdout)
    first = documents.parse(shown["document"])
    assert (shown["node"], shown["sequence"]) == ("kitchen", 1)
    assert shown["current"] == jws.encode(first.current)
    rotated = command("rotate")
    assert rotated.stdout == f"document 2, current key {jws.encode(first.next)}\n"
    assert command("revoke", "--reason", "lost", f"--key={jws.encode(first.current)}").returncode == 0
    assert command("revoke", "--key", "next").returncode == 0
    lines = command().stdout.splitlines()
    assert lines[0].startswith("node     kitchen, document 4")
    assert lines[1] == f"current  {jws.encode(first.next)}"
    assert f"revoked  {jws.encode(first.current)}, lost" in lines
    assert "secrets  in files of mode 0600, not sealed" in lines
    refused = command("revoke", "--key", "nonsense")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("edge-agent: cannot revoke: this node has no such key; fix: ")


def test_the_command_makes_and_checks_tokens(command: Command, base: Path) -> None:
    shown = json.loads(command("show", "--json").stdout)
    (base / "document").write_text(shown["document"] + "\n")
    token = command("token", "--audience", "storage", "--scope", "read", "--lifetime", "60").stdout.strip()
    of = (f"--document={base}/document", f"--pin={shown['current']}")
    good = command("check", "--token", token, "--audience", "storage", *of)
    assert (good.returncode, good.stdout) == (0, "valid: kitchen, by kitchen, for storage: read\n")
    bad = command("check", "--token", token, "--audience", "node")
    assert (bad.returncode, bad.stderr) == (1, "edge-agent: refused: is for storage, not for node\n")
    nonce = command("challenge").stdout.strip()
    answer = command("token", "--audience", "storage", f"--nonce={nonce}").stdout.strip()
    assert json.loads(command("check", "--token", answer, "--audience", "storage", "--json").stdout)["valid"] is True
    assert command("check", "--token", answer, "--audience", "storage").returncode == 1, "a challenge is answered once"


def test_the_command_says_what_is_wrong_with_it(command: Command, base: Path) -> None:
    check = ("check", "--audience", "a", "--token", "x")
    for words in (("revoke",), ("rotate", "x"), check[:3], (*check, "--pin=k"), (*check, "--document=/f"), ("x",)):
        done = command(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "; fix: " in done.stderr
    done = command("--run-dir", str(base / "nowhere"))
    assert done.returncode == 1
    assert "cannot reach identity: no socket" in done.stderr
