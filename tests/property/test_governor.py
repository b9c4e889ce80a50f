"""The governor over random loads and faults: what must hold at every look, and that everything comes back."""

from __future__ import annotations

import os
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from .pressed import Pressed

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "120"))
LOOKS = 100_000


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(random=st.randoms(use_true_random=False), psi=st.booleans(), turns=st.integers(1, 120))
def test_invariants_and_recovery(random: Random, psi: bool, turns: int) -> None:
    node = Pressed(random, psi=psi)
    for _ in range(turns):
        node.turn()
    node.recover()


@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_looks(seed: int) -> None:
    """In four runs, every one with all that can happen in it."""
    node = Pressed(Random(seed), psi=seed != 3)
    for turn in range(LOOKS // 4):
        node.turn()
        if turn % 5000 == 4999:
            node.recover()
    node.recover()
    wanted = {"Squeeze", "Relax", "Freeze", "Thaw", "Shed", "Return", "Helpless"}
    assert {kind for kind, count in node.counts.items() if count} == wanted, node.counts
