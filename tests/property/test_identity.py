"""A node that rotates and revokes its keys, verifiers that hear of it late, and clocks that jump: nothing stale passes.

True time goes on and nobody knows it. A clock that is believed is right by LEEWAY / 2, one that is doubted says
anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.records import Record
from edge_agent.services import documents, jws, rotation, tokens
from edge_agent.services.challenges import Challenges
from edge_agent.services.documents import Document, DocumentError
from edge_agent.services.rotation import RotationError
from edge_agent.services.tokens import LEEWAY, MAX_LIFETIME, Claims, Clock, TokenError

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "120"))
OVERLAP = MAX_LIFETIME + 2 * LEEWAY  # the shortest that the service allows
START = 1_800_000_000.0
NAMES = ("near", "far", "away")
PASSING = (0.5, 30.0, 100.0, 1000.0, MAX_LIFETIME, OVERLAP, 1e7)  # seconds
ERRORS = (*(-each for each in PASSING), -START, 0.0, 1e9)  # of a clock that is doubted: as late as time has passed


def refusal(call: Callable[[], object]) -> str:
    """The code by which it is refused, '' when it is not."""
    try:
        call()
    except (DocumentError, TokenError) as error:
        return error.code
    return ""


class Made(Record):
    """A token, and what is true of it. ``boot``: of the issuer, if it is bound to that."""

    token: str
    at: float  # true time
    lifetime: int
    key: bytes
    nonce: str
    honest: bool  # by an issuer that knew the time
    boot: str


class Verifier:
    """One that remembers a document. ``near`` is on the issuer's own machine, so they share a boot."""

    def __init__(self, name: str, document: Document) -> None:
        self.name, self.known = name, document
        self.error = 0.0  # of its clock, seconds
        self.doubt = ""
        self.challenges = Challenges(name.encode() * 4)
        self.spent: set[str] = set()


class IdentityMachine(RuleBasedStateMachine):
    """Every rule is something that happens to a node or to its verifiers."""

    @initialize()
    def begin(self) -> None:
        self.numbers = count(1)
        self.now, self.steady = START, 1000.0
        self.signers = [self.signer(), self.signer()]
        self.document = rotation.begin("here", self.signers[0], self.signers[1], int(START))
        self.history = [self.document]
        self.pins = [self.signers[0].key]
        self.error, self.doubt = 0.0, ""
        self.rotated: dict[bytes, float] = {}  # previous key -> steady
        self.verifiers = {name: Verifier(name, self.document) for name in NAMES}
        self.boot = 1
        self.made: list[Made] = []

    def signer(self) -> jws.Signer:
        return jws.Signer(next(self.numbers).to_bytes(32, "big"))

    def clock(self, error: float, doubt: str, boot: str) -> Clock:
        return Clock(max(0.0, self.now + error), doubt, START - 1e6, boot, self.steady)

    def boot_of(self, name: str) -> str:
        return f"{name}-{self.boot}"

    def issued(self) -> int:
        return 0 if self.doubt else int(self.now + self.error)

    def change(self, document: Document) -> None:
        """Written, read back, and kept: what the service does."""
        if document is self.document:
            return
        by_key = {each.key: each for each in self.signers}
        self.document = documents.parse(documents.write(document, by_key[document.current]))
        self.history.append(self.document)
        self.pins.append(self.document.current)

    # -- the node

    @rule()
    def rotates(self) -> None:
        fresh = self.signer()
        by_key = {each.key: each for each in self.signers}
        old, after = self.document.current, by_key[self.document.next]
        issued = self.issued()
        until = issued and issued + OVERLAP
        if len(self.document.previous) >= documents.MAX_PREVIOUS:
            with pytest.raises(RotationError, match="still valid"):
                rotation.rotate(self.document, after, fresh, until, issued)
            return
        document = rotation.rotate(self.document, after, fresh, until, issued)
        self.signers.append(fresh)
        self.change(document)
        self.rotated[old] = self.now

    @rule(which=st.sampled_from(("current", "next", "previous")))
    def revokes(self, which: str) -> None:
        found = {"current": self.document.current, "next": self.document.next}.get(which)
        if found is None and self.document.previous:
            found = self.document.previous[0].key
        if found is None:
            return
        fresh = self.signer()
        by_key = {each.key: each for each in self.signers}
        current, after = by_key[self.document.current], by_key[self.document.next]
        self.signers.append(fresh)
        self.change(rotation.revoke(self.document, jws.encode(found), "", current, after, fresh, self.issued()))

    @rule()
    def looks_whether_overlaps_are_over(self) -> None:
        clock = self.clock(self.error, self.doubt, "")
        over = [
            each.key
            for each in self.document.previous
            if (each.until and not clock.doubt and clock.wall >= each.until)
            or self.now - self.rotated[each.key] >= OVERLAP
        ]
        self.change(rotation.retire(self.document, over, self.issued()))

    @rule(
        lifetime=st.sampled_from((1, 60, MAX_LIFETIME)), bound=st.booleans(), challenger=st.sampled_from((None, *NAMES))
    )
    def issues(self, lifetime: int, bound: bool, challenger: str | None) -> None:
        clock = self.clock(self.error, self.doubt, self.boot_of("near"))
        nonce = ""
        if challenger:
            nonce = self.verifiers[challenger].challenges.make(self.steady, next(self.numbers).to_bytes(8, "big"))
        claims = Claims(
            *("here", "someone", "there", "", int(clock.wall), int(clock.wall) + lifetime, str(next(self.numbers))),
            nonce=nonce,
            boot=clock.boot if bound else "",
            up=int(clock.up),
        )
        signer = next(each for each in self.signers if each.key == self.document.current)
        token = tokens.issue(claims, signer)
        self.made.append(Made(token, self.now, lifetime, signer.key, nonce, not self.doubt, claims.boot))
        self.made = self.made[-12:]

    # -- time

    @rule(seconds=st.sampled_from(PASSING))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds

    @rule(
        name=st.sampled_from(NAMES),
        error=st.sampled_from(ERRORS),
        slight=st.floats(-0.5, 0.5),
        doubted=st.booleans(),
    )
    def a_clock_jumps(self, name: str, error: float, slight: float, *, doubted: bool) -> None:
        error, doubt = (error, "doubted") if doubted else (slight * LEEWAY, "")
        if name == "near":  # one machine, one clock
            self.error, self.doubt = error, doubt
            self.verifiers["near"].error, self.verifiers["near"].doubt = error, doubt
        else:
            self.verifiers[name].error, self.verifiers[name].doubt = error, doubt

    @rule()
    def all_machines_boot(self) -> None:
        self.boot += 1
        self.steady = 1.0
        for verifier in self.verifiers.values():
            verifier.challenges = Challenges(f"{verifier.name}-{self.boot}".encode().ljust(16))
        self.rotated = {key: min(at, self.now) for key, at in self.rotated.items()}

    # -- verifiers

    @rule(name=st.sampled_from(NAMES), back=st.integers(0, 6))
    def hears_a_document(self, name: str, back: int) -> None:
        verifier = self.verifiers[name]
        document = self.history[max(0, len(self.history) - 1 - back)]
        code = refusal(lambda: documents.update(verifier.known, document))
        assert code == ("rollback" if document.sequence < verifier.known.sequence else "")
        if not code:
            verifier.known = document

    @rule(name=st.sampled_from(NAMES))
    def hears_a_thiefs_document(self, name: str) -> None:
        """Somebody has the current key that the verifier knows, and writes a next one of its own."""
        verifier = self.verifiers[name]
        stolen = next(each for each in self.signers if each.key == verifier.known.current)
        thief, after = self.signer(), self.signer()
        forged = rotation.begin("here", stolen, thief, 0)
        forged = rotation.rotate(forged, thief, after, 0, 0)
        forged = forged._replace(sequence=verifier.known.sequence + 9, revoked=verifier.known.revoked)
        text = documents.write(forged, thief)
        code = refusal(lambda: documents.update(verifier.known, documents.parse(text)))
        assert code in ("fork", "revoked"), "another key than the announced one was followed"

    @rule(
        bound=st.booleans(),
        challenger=st.sampled_from((None, *NAMES)),
        seconds=st.sampled_from(PASSING),
        doubted=st.sampled_from(NAMES),
        hears=st.booleans(),
    )
    def a_token_is_used_late(
        self, bound: bool, challenger: str | None, seconds: float, doubted: str, hears: bool
    ) -> None:
        """After a rotation, by somebody who has turned a clock back by as much, where it is not believed."""
        for name in NAMES:
            self.hears_a_document(name, 0)
        self.issues(60, bound, challenger)
        self.rotates()
        for name in NAMES if hears else ():
            self.hears_a_document(name, 0)
        self.time_passes(seconds)
        self.a_clock_jumps(doubted, -seconds, 0.0, doubted=True)
        self.all_check_all()

    @precondition(lambda self: self.made)
    @rule()
    def all_check_all(self) -> None:
        for name, verifier in self.verifiers.items():
            for made in self.made:
                self.checks(name, verifier, made)

    def checks(self, name: str, verifier: Verifier, made: Made) -> None:
        clock = self.clock(verifier.error, verifier.doubt, self.boot_of(name))
        age = self.now - made.at
        issuer = verifier.known.issuer(clock)
        ages = verifier.challenges.age
        code = refusal(
            lambda: tokens.verify(made.token, issuer, "there", clock, lambda nonce: ages(nonce, self.steady))
        )
        if code:
            self.may_refuse(verifier, made, clock, age, code)
            return
        by_wall = not made.nonce and made.boot != clock.boot
        assert age < made.lifetime + (2 * LEEWAY + 1 if by_wall else 1), f"{age} s old, lasts {made.lifetime} s"
        assert not verifier.known.revokes(made.key)
        if made.nonce:
            assert made.nonce not in verifier.spent, "a challenge was answered twice"
            assert verifier.challenges.spend(made.nonce, self.steady)
            verifier.spent.add(made.nonce)

    def may_refuse(self, verifier: Verifier, made: Made, clock: Clock, age: float, code: str) -> None:
        """What is fresh by the clocks, and by a key that the verifier can know, is never refused."""
        known = verifier.known
        if code == "unknown-key":
            assert made.key not in (known.current, known.next)
            # of the newest document no key is missing that has signed a token which may still live
            assert known is not self.document or known.revokes(made.key) or age >= made.lifetime
        elif code == "clock":
            assert clock.doubt
            assert not made.nonce
        elif code == "challenge":
            assert verifier.challenges.age(made.nonce, self.steady) is None
        else:
            assert code in ("expired", "early")
            assert age >= made.lifetime - 1 or not made.honest or clock.doubt, f"{code}: {age} s of {made.lifetime}"
            assert not made.nonce or age >= made.lifetime - 1

    # -- always

    @invariant()
    def every_key_it_ever_had_leads_to_the_document(self) -> None:
        for key in self.pins[-documents.MAX_CHAIN :]:
            documents.follow(self.document, key)

    @invariant()
    def no_key_in_use_is_revoked(self) -> None:
        keys = self.document.issuer(Clock(0.0, "unsure")).keys.values()
        assert not any(map(self.document.revokes, keys))


IdentityMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestIdentity = IdentityMachine.TestCase
