"""Tokens: what a verifier takes, by what it knows of the time, and why it refuses the rest."""

from __future__ import annotations

import json

import pytest

from edge_agent.services import jws, tokens
from edge_agent.services.challenges import LIFETIME, MOST, Challenges
from edge_agent.services.jws import Signer
from edge_agent.services.tokens import LEEWAY, MAX_LIFETIME, Claims, Clock, Issuer, TokenError

NOW = 1_800_000_000
SIGNER = Signer(bytes(range(32)))
STRANGER = Signer(bytes(32))
ISSUER = Issuer("here", {SIGNER.id: SIGNER.key})
CLAIMS = Claims("here", "camera", "storage", "read write", NOW, NOW + 300, "1")
DOUBT = Clock(0.0, "it is 1970", floor=NOW - 1000.0)


def refused(claims: Claims, clock: Clock, audience: str = "storage", age: float | None = None) -> TokenError:
    with pytest.raises(TokenError) as caught:
        tokens.verify(tokens.issue(claims, SIGNER), ISSUER, audience, clock, lambda _: age)
    return caught.value


def test_the_signature_and_the_thumbprint_are_those_of_rfc_8037() -> None:
    """Appendix A.1 to A.4."""
    signer = Signer(jws.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    assert jws.encode(signer.key) == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert signer.id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert jws.encode(signer.sign(signed)) == expected
    assert jws.verifies(signer.key, signed, jws.decode(expected))


def test_a_token_says_what_was_put_into_it() -> None:
    claims = tokens.verify(tokens.issue(CLAIMS, SIGNER), ISSUER, "storage", Clock(NOW))
    assert claims == CLAIMS
    assert claims.allows("read")
    assert not claims.allows("rea")
    assert not claims.allows("read write")


def test_names_are_unicode_and_the_longest_token_fits() -> None:
    name = "Ω" * tokens.MAX_WORD
    claims = Claims(name, name, name, "ä" * tokens.MAX_SCOPE, NOW, NOW + 300, name, boot="b" * 36, up=2**40)
    token = tokens.issue(claims, SIGNER)
    assert tokens.verify(token, Issuer(name, ISSUER.keys), name, Clock(NOW)) == claims


@pytest.mark.parametrize(
    ("clock", "code"),
    [
        (Clock(NOW - LEEWAY), ""),
        (Clock(NOW - LEEWAY - 1), "early"),
        (Clock(NOW + 300 + LEEWAY - 1), ""),
        (Clock(NOW + 300 + LEEWAY), "expired"),
        (Clock(0.0), "early"),
        (Clock(NOW, "unsure", NOW - 1000.0), "clock"),
        (Clock(0.0, "it is 1970", NOW + 300 + LEEWAY), "expired"),
        (Clock(0.0, "it is 1970", NOW + 300 + LEEWAY - 1), "clock"),
        (Clock(NOW + 10**9, "unsure", 0.0), "clock"),
    ],
)
def test_by_the_wall_clock(clock: Clock, code: str) -> None:
    if code:
        assert refused(CLAIMS, clock).code == code
    else:
        assert tokens.verify(tokens.issue(CLAIMS, SIGNER), ISSUER, "storage", clock)


def test_a_refusal_for_doubt_says_what_is_doubted_and_the_way_out() -> None:
    error = refused(CLAIMS, DOUBT)
    assert str(error) == (
        "cannot tell whether it is still valid: it is 1970; fix: ask for one that is bound to a challenge"
    )


@pytest.mark.parametrize("clock", [DOUBT, Clock(NOW), Clock(NOW + 10**8), Clock(0.0)])
def test_by_the_boot_that_both_share_no_wall_clock_matters(clock: Clock) -> None:
    claims = CLAIMS._replace(boot="b1", up=100)
    here = clock._replace(boot="b1")
    for up, code in ((99.5, ""), (100.0, ""), (399.9, ""), (400.0, "expired"), (90.0, "early")):
        if code:
            assert refused(claims, here._replace(up=up)).code == code
        else:
            assert tokens.verify(tokens.issue(claims, SIGNER), ISSUER, "storage", here._replace(up=up)) == claims


def test_the_boot_of_another_machine_says_nothing() -> None:
    claims = CLAIMS._replace(boot="b1", up=100)
    assert refused(claims, DOUBT._replace(boot="b2", up=100.0)).code == "clock"
    assert refused(claims, DOUBT._replace(boot="", up=100.0)).code == "clock"
    assert tokens.verify(tokens.issue(claims, SIGNER), ISSUER, "storage", Clock(NOW, boot="b2", up=9e9))


@pytest.mark.parametrize("issued", [0, NOW, NOW + 10**9])
@pytest.mark.parametrize("clock", [DOUBT, Clock(NOW), Clock(0.0)])
def test_bound_to_a_challenge_neither_clock_matters(clock: Clock, issued: int) -> None:
    claims = CLAIMS._replace(nonce="n", issued=issued, expires=issued + 30, boot="b1", up=7)
    token = tokens.issue(claims, SIGNER)
    assert tokens.verify(token, ISSUER, "storage", clock._replace(boot="b1"), {"n": 29.0}.get) == claims
    assert refused(claims, clock, age=30.0).code == "expired"
    assert refused(claims, clock, age=-1.0).code == "expired"
    assert refused(claims, clock._replace(boot="b1", up=8.0)).code == "challenge"


def test_it_is_of_the_issuer_and_for_the_audience() -> None:
    assert refused(CLAIMS, Clock(NOW), "node").code == "audience"
    assert refused(CLAIMS._replace(issuer="there"), Clock(NOW)).code == "issuer"
    with pytest.raises(TokenError) as caught:
        tokens.verify(tokens.issue(CLAIMS, STRANGER), ISSUER, "storage", Clock(NOW))
    assert caught.value.code == "unknown-key"


def test_a_key_under_anothers_thumbprint_does_not_sign_for_it() -> None:
    made = Issuer("here", {STRANGER.id: SIGNER.key})
    with pytest.raises(TokenError) as caught:
        tokens.verify(tokens.issue(CLAIMS, STRANGER), made, "storage", Clock(NOW))
    assert caught.value.code == "signature"


@pytest.mark.parametrize("lifetime", [0, -5, MAX_LIFETIME + 1])
def test_no_token_lasts_longer_than_it_may(lifetime: int) -> None:
    claims = CLAIMS._replace(expires=NOW + lifetime)
    with pytest.raises(TokenError, match="does not last"):
        tokens.issue(claims, SIGNER)
    payload = {"iss": "here", "sub": "x", "aud": "storage", "scope": "", "iat": NOW, "exp": NOW + lifetime, "jti": "1"}
    with pytest.raises(TokenError) as caught:
        tokens.verify(jws.sign(payload, "JWT", SIGNER), ISSUER, "storage", Clock(NOW))
    assert caught.value.code == "lifetime"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("iss", bad) for bad in (None, 1, "", "x\n", "x" * 129)),
        *(("aud", bad) for bad in (None, ["storage"], "")),
        *(("scope", bad) for bad in (None, "x" * 257, ["a"])),
        *(("iat", bad) for bad in (None, float(NOW), True, -1, 2**60, str(NOW))),
        *(("exp", bad) for bad in (None, float(NOW), 2**60)),
        *(("nonce", bad) for bad in (None, 5, "")),
        ("boot", 5),
    ],
)
def test_claims_of_another_form_are_malformed(name: str, value: object) -> None:
    payload = {"iss": "here", "sub": "x", "aud": "storage", "scope": "", "iat": NOW, "exp": NOW + 9, "jti": "1"}
    with pytest.raises(TokenError) as caught:
        tokens.verify(jws.sign({**payload, name: value}, "JWT", SIGNER), ISSUER, "storage", Clock(NOW))
    assert caught.value.code == "malformed"


def made(header: object, payload: bytes = b"{}", signer: Signer = SIGNER) -> str:
    head = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    signed = f"{jws.encode(head)}.{jws.encode(payload)}"
    return f"{signed}.{jws.encode(signer.sign(signed.encode()))}"


GOOD = {"alg": "EdDSA", "kid": SIGNER.id, "typ": "JWT"}


@pytest.mark.parametrize(
    "token",
    [
        *("", ".", "..", "...", "a.b", "a.b.c.d", "é.b.c", "x" * 5000),
        made({**GOOD, "alg": "none"}),
        made({**GOOD, "alg": "HS256"}),
        made({**GOOD, "typ": "edge-agent-identity+jwt"}),
        made({**GOOD, "crit": ["exp"]}),
        made({**GOOD, "jwk": {}}),
        made({**GOOD, "kid": None}),
        made(b' {"alg":"EdDSA","kid":"%b","typ":"JWT"}' % SIGNER.id.encode()),
        made(b'{"alg":"none","alg":"EdDSA","kid":"%b","typ":"JWT"}' % SIGNER.id.encode()),
        made(GOOD, b"[]"),
        made(GOOD, b"\xff"),
        made(GOOD, b'{"iat":NaN}'),
        made(GOOD, b'{"iat":1,"iat":2}'),
        made(GOOD, b"[" * 2000),
        made(GOOD, b"1" * 3000),
        tokens.issue(CLAIMS, SIGNER) + "=",
        tokens.issue(CLAIMS, SIGNER) + "\n",
        tokens.issue(CLAIMS, SIGNER)[:-1],
    ],
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    with pytest.raises(TokenError) as caught:
        tokens.verify(token, ISSUER, "storage", Clock(NOW))
    assert caught.value.code == "malformed"


def test_no_other_text_reads_as_the_same_token() -> None:
    """RFC 4648 lets a decoder ignore the last bits of a group: then there would be 16 signatures for one."""
    token = tokens.issue(CLAIMS, SIGNER)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in set(alphabet) - {token[-1]}:
        with pytest.raises(TokenError):
            tokens.verify(token[:-1] + last, ISSUER, "storage", Clock(NOW))


def test_every_token_begins_as_the_signing_service_expects() -> None:
    assert tokens.issue(CLAIMS, SIGNER).encode().startswith(jws.BEGINNING)


# -- challenges


def test_a_challenge_is_good_once_and_for_its_time() -> None:
    challenges = Challenges(b"s" * 32)
    nonce = challenges.make(1000.0, b"r" * 8)
    assert len(nonce) == 43
    assert challenges.age(nonce, 1000.0) == 0.0
    assert challenges.age(nonce, 1010.0) == 10.0
    assert challenges.age(nonce, 1000.0 + LIFETIME) is None
    assert challenges.spend(nonce, 1010.0)
    assert challenges.age(nonce, 1010.0) is None


def test_challenges_of_others_are_none() -> None:
    nonce = Challenges(b"t" * 32).make(1000.0, b"r" * 8)
    challenges = Challenges(b"s" * 32)
    for other in (nonce, "", "x", "é", nonce[:-1], nonce + "A", jws.encode(bytes(32)), jws.encode(bytes(16))):
        assert challenges.age(other, 1000.0) is None


def test_answered_challenges_are_remembered_in_bounded_memory_until_they_are_old() -> None:
    challenges = Challenges(b"s" * 32)
    nonces = [challenges.make(1000.0, number.to_bytes(8, "big")) for number in range(MOST + 1)]
    assert all(challenges.spend(nonce, 1000.0) for nonce in nonces[:MOST])
    assert not challenges.spend(nonces[MOST], 1000.0), "refused, not forgotten"
    assert all(challenges.age(nonce, 1001.0) is None for nonce in nonces[:MOST])
    assert challenges.spend(challenges.make(2000.0, b"r" * 8), 2000.0)
