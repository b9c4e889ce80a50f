"""Requests, the identity's operations, notifications."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.peers.wire import pack
from edge_agent.services import notify, requests
from edge_agent.services.errors import RefusedError
from edge_agent.services.identity import MAX_DATA, Identity
from edge_agent.services.options import Options


def refuse(_request: requests.Request) -> dict[str, Any]:
    raise RefusedError("no", "because", "do")


def break_down(_request: requests.Request) -> dict[str, Any]:
    raise OSError(5, "Input/output error")


OPERATIONS = {"echo": lambda request: {"told": request.data("data", 4)}, "refuse": refuse, "break": break_down}


def serve(data: bytes, limit: int = 1000) -> dict[str, Any]:
    answers: list[bytes] = []
    request = requests.parse(data, limit, "uid:0", answers.append)
    if request is not None:
        requests.perform(request, OPERATIONS)
    (answer,) = answers
    unpacked: dict[str, Any] = msgpack.unpackb(answer)
    return unpacked


def test_an_answer_repeats_the_id() -> None:
    assert serve(pack({"v": 1, "id": 9, "op": "echo", "data": b"x"})) == {"v": 1, "id": 9, "ok": True, "told": b"x"}


@pytest.mark.parametrize(
    ("message", "number", "code"),
    [
        ({"v": 1, "id": 9, "op": "refuse"}, 9, "no"),
        ({"v": 1, "id": 9, "op": "break"}, 9, "failed"),
        ({"v": 1, "id": 9, "op": "nothing"}, 9, "unknown-op"),
        ({"v": 1, "id": 9, "op": 3}, 9, "malformed"),
        ({"v": 1, "id": 9}, 9, "malformed"),
        ({"v": 2, "id": 9, "op": "echo"}, 9, "version"),
        ({"v": 1, "id": -1, "op": "echo"}, 0, "malformed"),
        ({"v": 1, "id": True, "op": "echo"}, 0, "malformed"),
        ({"v": 1, "op": "echo"}, 0, "malformed"),
        ({"v": 1, "id": 9, "op": "echo"}, 9, "bad-request"),
        ({"v": 1, "id": 9, "op": "echo", "data": "x"}, 9, "bad-request"),
        ({"v": 1, "id": 9, "op": "echo", "data": b"12345"}, 9, "bad-request"),
    ],
)
def test_each_refusal_has_its_code(message: dict[str, Any], number: int, code: str) -> None:
    answer = serve(pack(message))
    assert (answer["ok"], answer["id"], answer["error"]["code"]) == (False, number, code)


@given(st.binary(max_size=100))
def test_any_bytes_get_one_answer(data: bytes) -> None:
    assert serve(data)["ok"] is False


def test_a_request_above_the_limit_is_refused() -> None:
    assert serve(pack({"v": 1, "id": 1, "op": "echo", "x": bytes(1000)}))["error"]["code"] == "malformed"


def test_a_defect_is_not_hidden() -> None:
    def defect(_request: requests.Request) -> None:
        raise ZeroDivisionError

    request = requests.Request({"id": 1, "op": "defect"}, "uid:0", lambda _data: None)
    with pytest.raises(ZeroDivisionError):
        requests.perform(request, {"defect": defect})


# -- identity


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    service = Identity(Options("identity", str(tmp_path), str(tmp_path)))
    service.open(None)  # type: ignore[arg-type]  # it needs nothing of the runtime
    return service


def ask(identity: Identity, op: str, **arguments: Any) -> dict[str, Any]:
    request = requests.Request({"v": 1, "id": 1, "op": op, **arguments}, "uid:0", lambda _data: None)
    answer = identity.operations()[op](request)
    assert answer is not None
    return answer


def test_a_signature_is_valid_for_its_bytes_and_its_key_only(identity: Identity) -> None:
    signed = ask(identity, "sign", data=b"hello")
    assert ask(identity, "verify", data=b"hello", signature=signed["signature"])["valid"] is True
    assert ask(identity, "verify", data=b"hello", signature=signed["signature"], key=signed["key"])["valid"] is True
    assert ask(identity, "verify", data=b"hellO", signature=signed["signature"])["valid"] is False
    assert ask(identity, "verify", data=b"hello", signature=signed["signature"], key=bytes(32))["valid"] is False
    assert ask(identity, "verify", data=b"hello", signature=bytes(64))["valid"] is False


def test_the_published_vectors_of_rfc_8032_verify(identity: Identity) -> None:
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")  # section 7.1, test 2
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert ask(identity, "verify", data=b"\x72", signature=signature, key=key)["valid"] is True


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("sign", {}),
        ("sign", {"data": "text"}),
        ("sign", {"data": bytes(MAX_DATA + 1)}),
        ("verify", {"data": b"", "signature": bytes(63)}),
        ("verify", {"data": b"", "signature": bytes(64), "key": bytes(31)}),
    ],
)
def test_wrong_arguments_are_refused(identity: Identity, op: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(RefusedError) as caught:
        ask(identity, op, **arguments)
    assert caught.value.code == "bad-request"


def test_the_key_stays_and_the_document_names_the_node(identity: Identity, tmp_path: Path) -> None:
    document = ask(identity, "public")["document"]
    again = Identity(Options("identity", str(tmp_path), str(tmp_path), node_id="node-001"))
    again.open(None)  # type: ignore[arg-type]  # it needs nothing of the runtime
    assert ask(again, "public")["document"] == document | {"node_id": "node-001"}
    assert document["node_id"].startswith("node-")


# -- notifications


def test_messages_arrive_at_the_socket_of_the_starter(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        notifier = notify.Notifier(path)
        notifier.send("READY=1", "STATUS=well")
        assert receiver.recv(100) == b"READY=1\nSTATUS=well"
        notifier.close()
    notifier.send("READY=1")  # nothing happens


def test_a_starter_that_is_gone_does_not_matter(tmp_path: Path) -> None:
    notifier = notify.Notifier(str(tmp_path / "gone"))
    notifier.send("WATCHDOG=1")
    notifier.close()


@pytest.mark.parametrize("address", [None, "", "relative"])
def test_without_a_socket_nothing_is_sent(address: str | None) -> None:
    notify.Notifier(address).send("READY=1")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "42"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_wanted_by_its_variables(environ: dict[str, str], seconds: float | None) -> None:
    assert notify.watchdog(environ, 42) == seconds
