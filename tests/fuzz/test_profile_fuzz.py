"""Mutated and random profiles: a Profile or ProfileError, nothing else, in our own words.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples; ``profile_fuzzer`` runs for a time instead.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .profile_fuzzer import WORDS, check, rounds

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "60"))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(WORDS))
KEYS = st.one_of(st.sampled_from([word for word in WORDS if word.isidentifier()]), st.text(max_size=5))
TREES = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=5), max_leaves=25
)


def test_mutated_profiles(tmp_path: Path) -> None:
    answers = [check(raw, tmp_path / "p.yaml") for raw in itertools.islice(rounds(seed=1), 10 * EXAMPLES)]
    assert len(set(answers)) == 2, "some load and some are refused, or the mutations are worthless"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    top=st.dictionaries(KEYS, TREES, max_size=4),
    service=st.dictionaries(KEYS, TREES, max_size=4),
    flow=st.booleans(),
)
def test_random_trees(
    top: dict[str, object], service: dict[str, object], flow: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = yaml.safe_dump({**top, "services": {"node": {}, "s": service}}, default_flow_style=flow, allow_unicode=True)
    check(text.encode("utf-8", "surrogatepass"), tmp_path_factory.getbasetemp() / "p.yaml")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(max_size=200))
def test_random_bytes(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(raw, tmp_path_factory.getbasetemp() / "p.yaml")
