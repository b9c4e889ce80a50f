"""Mutates profiles and checks that each is either loaded or refused in our own words, quickly.

A longer run, also to repeat a failure: ``python -m tests.fuzz.profile_fuzzer --seconds 600 --seed 7``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edge_agent.demand import Amount, Profile
from edge_agent.model import Service
from edge_agent.profile import Problem, ProfileError

from ..unit.profiles import load_file

ROOT = Path(__file__).parent.parent.parent
SLOWEST = 2.0
"""Seconds of processor for one profile of the sizes made here, on a slow machine."""
JARGON = re.compile(r"pydantic|Input should|validation error|Traceback|type=|_type|<command>|<later>|Leaf\(|ctx", re.I)
WORDS: list[str] = json.loads((ROOT / "tests" / "fixtures" / "profiles" / "words.json").read_text())
"""What mutations put in: keys and values of the format, right and wrong, and what YAML finds special."""


def seeds() -> list[str]:
    """The shipped profiles and the seed's blocks."""
    return [
        path.read_text() for path in sorted([*ROOT.glob("profiles/*.yaml"), *ROOT.glob("tests/fixtures/seed/*.yaml")])
    ]


def mutated(text: str, others: list[str], chance: random.Random) -> bytes:
    """``text`` with one to eight changes: words, lines, indentation, whole parts of others, bytes."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(lines)) if lines else 0
        kind = chance.randrange(8)
        if not lines or kind == 0:
            lines.insert(at, chance.choice(WORDS) + chance.choice([":", ": ", ": " + chance.choice(WORDS), ""]))
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif kind == 3:
            lines[at] = " " * chance.randint(0, 9) + lines[at].strip()
        elif kind == 4:
            other = chance.choice(others).splitlines()
            start = chance.randrange(len(other))
            lines[at:at] = other[start : start + chance.randint(1, 12)]
        elif kind == 5:
            lines[at] = lines[at].partition(":")[0] + ": " + chance.choice(WORDS)
        else:
            pieces = re.split(r"(\W)", lines[at])
            pieces[chance.randrange(len(pieces))] = chance.choice(WORDS)
            lines[at] = "".join(pieces)
    raw = bytearray("\n".join(lines).encode())
    if raw and chance.random() < 0.1:
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def check(raw: bytes, path: Path) -> bool:
    """Load ``raw`` from ``path``; whether it is a profile. Raises AssertionError for a bad answer, or what load did."""
    path.write_bytes(raw)
    began = time.process_time()
    try:
        profile = load_file(path, environ={"HOME": "/root", "BLACKHOLE_STORAGE_PORT": "7"})
    except ProfileError as error:
        check_problems(error.problems, raw, path)
        loaded = False
    else:
        check_profile(profile)
        loaded = True
    assert time.process_time() - began < SLOWEST
    return loaded


def check_problems(problems: tuple[Problem, ...], raw: bytes, path: Path) -> None:
    """One line each, at a line that exists, without the words of the libraries below."""
    assert problems
    lines = len(raw.decode("utf-8", "replace").splitlines()) + 1
    for problem in problems:
        text = problem.text()
        assert problem.why, text
        assert "\n" not in text, text
        assert problem.file != str(path) or 0 <= problem.line <= lines, text
        ours = (problem.why + problem.fix).replace("sd_notify", "")  # key and value are the person's own words
        assert not JARGON.search(ours) or JARGON.search(raw.decode("utf-8", "replace")), text


def check_profile(profile: Profile) -> None:
    """What everyone after the loader relies on."""
    names = [each.service.name for each in profile.demands]
    assert len(set(names)) == len(names)
    for demand in profile.demands:
        service = demand.service
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", service.name)
        assert service.argv
        assert all("\0" not in word for word in service.argv)
        assert all("=" not in name and "\0" not in name + value for name, value in service.env)
        assert set(service.depends_on) <= set(names)
        for amount in (demand.memory_request, demand.memory_limit, demand.cpu_request, demand.cpu_limit):
            check_amount(amount)
        check_numbers(service)


def check_amount(amount: Amount | None) -> None:
    """Within what the budget can add up."""
    if amount is not None:
        assert 0 <= amount.absolute < 2**63
        assert amount.share is None or 0 < amount.share <= 1


def check_numbers(service: Service) -> None:
    """Within what the kernel takes."""
    assert 0 <= service.importance <= 100
    assert -20 <= service.nice <= 19
    assert -1000 <= service.oom_score_adj <= 1000
    assert 1 <= service.stop_signal <= 64
    assert service.start_timeout > 0
    assert service.stop_timeout >= 0
    assert service.health.interval >= 0
    assert service.health.timeout > 0
    assert service.restart.max_delay >= service.restart.delay >= 0
    assert service.restart.factor >= 1
    assert all(soft <= hard or hard == -1 for _, soft, hard in service.rlimits)


def rounds(seed: int) -> Iterator[bytes]:
    """Mutated profiles without end, the same for the same seed."""
    chance, texts = random.Random(seed), seeds()
    while True:
        yield mutated(chance.choice(texts), texts, chance)


def main() -> int:
    """Fuzz for a while; print what broke and how to repeat it."""
    parser = argparse.ArgumentParser(description="Fuzz the profile loader.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    count = loaded = 0
    until = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as directory:
        for raw in rounds(options.seed):
            if time.monotonic() > until:
                break
            try:
                loaded += check(raw, Path(directory, "p.yaml"))
            except Exception:
                kept = Path(tempfile.gettempdir(), f"profile-fuzz-{options.seed}-{count}.yaml")
                kept.write_bytes(raw)
                print(f"seed {options.seed}, profile {count}: kept in {kept}", file=sys.stderr)
                raise
            count += 1
    print(f"{count} profiles, {loaded} loaded, {count - loaded} refused, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
