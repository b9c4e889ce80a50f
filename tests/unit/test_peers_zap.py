"""Who is let in, by RFC 27."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.peers import zap
from edge_agent.peers.zap import Credentials, Query, ZapError

CURVE = [b"1.0", b"7", b"peers", b"127.0.0.1", b"", b"CURVE", bytes(32)]


def test_a_curve_request_is_read() -> None:
    assert zap.parse(CURVE) == Query(b"7", "peers", "127.0.0.1", "CURVE", bytes(32))


def test_a_null_request_is_read() -> None:
    query = zap.parse([b"1.0", b"7", b"local", b"localhost:0:0:9", b"", b"NULL"])
    assert (query.mechanism, query.key) == ("NULL", b"")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        CURVE[:5],
        [b"2.0", *CURVE[1:]],
        [*CURVE[:5], b"PLAIN", b"admin", b"secret"],
        [*CURVE[:5], b"GSSAPI", b"principal"],
        [*CURVE[:6], bytes(31)],
        [*CURVE[:6]],
        [*CURVE, b"more"],
        [*CURVE[:5], b"NULL", b"more"],
        [*CURVE[:5], b"curve", bytes(32)],
    ],
)
def test_what_is_not_null_or_curve_is_no_request(parts: list[bytes]) -> None:
    with pytest.raises(ZapError):
        zap.parse(parts)


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_any_parts_are_a_query_or_a_zap_error(parts: list[bytes]) -> None:
    with contextlib.suppress(ZapError):
        assert zap.parse(parts).mechanism in ("NULL", "CURVE")


def test_the_answers_are_200_with_the_name_and_400() -> None:
    assert zap.answer(b"7", "me") == [b"1.0", b"7", b"200", b"OK", b"me", b""]
    assert zap.answer(b"7", None)[2] == b"400"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("localhost:55:77:19330", Credentials(55, 77, 19330)),
        (":0:0:1", Credentials(0, 0, 1)),
        ("::1:0:0:1", Credentials(0, 0, 1)),
        ("localhost", None),
        ("", None),
        ("localhost:-1:0:1", None),
        ("localhost:0:0:", None),
        ("localhost:٣:0:1", None),
    ],
)
def test_credentials_are_the_last_three_numbers(address: str, found: Credentials | None) -> None:
    assert zap.credentials(address) == found


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "allowed"),
    [
        (0, 0, (), True),
        (900, 5, (), True),
        (5, 901, (), True),
        (5, 5, (7, 901), True),
        (5, 5, (7,), False),
        (901, 900, (900,), False),
    ],
)
def test_root_the_services_user_and_its_group_may_connect(
    uid: int, gid: int, groups: tuple[int, ...], allowed: bool
) -> None:
    assert zap.may_connect(Credentials(uid, gid, 1), frozenset(groups), uid=900, gid=901) is allowed
