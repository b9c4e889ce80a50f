"""The seed document's own blocks load as they are, and the shipped profiles say what their comments promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.demand import Amount, Demand, Profile
from edge_agent.model import Service
from edge_agent.profile import ProfileError

from .profiles import load_file, load_text

ROOT = Path(__file__).parent.parent.parent
SEED = sorted((ROOT / "tests" / "fixtures" / "seed").glob("*.yaml"))
SHIPPED = sorted((ROOT / "profiles").glob("*.yaml"))


def readable(profile: Profile) -> str:
    """A profile as text: one line per value that is not the default."""
    settings = ("memory_total", "cpu_total", "memory_reserve", "os_memory_reserve", "enforcement", "switch_timeout")
    lines = [f"profile {profile.name}, mode {profile.mode}"]
    lines += [f"  {field}: {_value(getattr(profile, field))}" for field in settings]
    for demand in profile.demands:
        lines += ["", *_demand(demand)]
    if profile.not_acted_on:
        lines += ["", "not acted on", *(f"  {note}" for note in profile.not_acted_on)]
    return "\n".join(lines) + "\n"


def _demand(demand: Demand) -> list[str]:
    kind = "bundled" if demand.bundled else "command"
    lines = [f"{demand.service.name}: {kind}, line {demand.line}" + ("" if demand.enabled else ", off")]
    amounts = ("memory_request", "memory_limit", "swap_limit", "cpu_request", "cpu_limit")
    lines += [f"  {field}: {_value(getattr(demand, field))}" for field in amounts if getattr(demand, field) is not None]
    lines += [f"  {text}" for text in _changed(demand.service._replace(name="", env=()), Service("", ()))]
    for name, text in demand.service.env:
        if name == "EDGE_AGENT_SERVICE_OPTIONS":
            lines += [f"  told {key}: {json.dumps(value)}" for key, value in json.loads(text).items()]
        elif name not in ("HOME", "LANG", "PATH"):
            lines.append(f"  env {name}={text}")
    return lines


def _changed(value: Any, default: Any, above: str = "") -> list[str]:
    lines: list[str] = []
    for field in type(default)._fields:
        new, old = getattr(value, field), getattr(default, field)
        if hasattr(old, "_fields"):
            lines += _changed(new, old, f"{above}{field}.")
        elif new != old:
            lines.append(f"{above}{field}: {new}")
    return lines


def _value(value: object) -> str:
    if isinstance(value, Amount):
        return str(value.absolute) if value.share is None else f"{value.share:.0%}"
    return str(value)


@pytest.mark.parametrize("path", SEED, ids=lambda path: path.stem)
def test_the_seed_loads(path: Path, golden: Callable[[str, str], None]) -> None:
    golden(f"profile-seed-{path.stem}.txt", readable(load_file(path)))


def test_all_seed_blocks_are_here() -> None:
    combined = ["development", "single-node", "distributed", "edge"]
    blocks = [*combined, "performance", "network-policies", "disaster-recovery"]
    assert {path.stem for path in SEED} == {*blocks, *(f"{name}-combined" for name in combined)}
    for name in combined:
        text = (SEED[0].parent / f"{name}-combined.yaml").read_text()
        parts = [name, "performance", "network-policies", "disaster-recovery"]
        assert all((SEED[0].parent / f"{part}.yaml").read_text() in text for part in parts)


def test_every_key_of_the_seed_is_checked() -> None:
    """Accepted is not ignored: a typing error in any key of any block is found, and the right key named."""
    for path in SEED:
        if "combined" in path.stem:
            continue
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            key, colon, _ = line.strip().removeprefix("- ").partition(":")
            indent = len(line) - len(line.lstrip())
            if not colon or key.startswith("#") or (indent == 2 and _below(lines, number) == "services"):
                continue
            broken = [*lines[:number], line.replace(key + ":", key + "x:", 1), *lines[number + 1 :]]
            with pytest.raises(ProfileError) as caught:
                load_text("\n".join(broken))
            texts = [each.text() for each in caught.value.problems if each.line == number + 1]
            assert any("unknown key" in text and f"'{key}'" in text for text in texts), (path.stem, line, texts)


def _below(lines: list[str], number: int) -> str:
    return next((each[:-1] for each in reversed(lines[:number]) if each[:1].isalpha()), "")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_profiles_load_and_ask_for_nothing_that_is_missing(path: Path) -> None:
    profile = load_file(path)
    assert profile.not_acted_on == ()
    assert [each for each in profile.demands if each.enabled]


def test_the_edge_profile_is_the_seeds() -> None:
    """But for the memory that is promised: less, so that it runs on half a gigabyte. The limits are the same."""
    shipped, seed = load_file(ROOT / "profiles" / "edge.yaml"), load_file(SEED[0].parent / "edge.yaml")
    plain = [each._replace(line=0, memory_request=None) for each in seed.demands]
    assert [each._replace(line=0, memory_request=None) for each in shipped.demands] == plain
    for mine, theirs in zip(shipped.demands, seed.demands, strict=True):
        if mine.enabled:
            assert mine.memory_request is not None
            assert theirs.memory_request is not None
            assert mine.memory_request.absolute < theirs.memory_request.absolute
    assert (
        (shipped.memory_total, shipped.cpu_total)
        == (seed.memory_total, seed.cpu_total)
        == (
            Amount(2 * 10**9),
            Amount(1000),
        )
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_requests_of_shipped_profiles_fit_their_total(path: Path) -> None:
    profile = load_file(path)
    enabled = [each for each in profile.demands if each.enabled]
    for total, unit in (("memory_total", "memory_request"), ("cpu_total", "cpu_request")):
        amount = getattr(profile, total)
        if amount.share is None:
            asked = sum(getattr(each, unit).absolute for each in enabled if getattr(each, unit))
            assert asked <= amount.absolute
