"""Sizes, durations, cores, shares."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.profile.problems import ReadError
from edge_agent.profile.units import MAX_SIZE, read_cores, read_duration, read_share, read_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1B", 1),
        ("1KB", 1000),
        ("1kB", 1000),
        ("1K", 1000),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1KiB", 1024),
        ("256MB", 256_000_000),
        ("512Mi", 512 * 1024**2),
        ("2GB", 2 * 10**9),
        ("2 GiB", 2 * 1024**3),
        ("1.5G", 1_500_000_000),
        (".5G", 500_000_000),
        ("1e6", 1_000_000),
        ("1E", 10**18),
        ("0.1GiB", 107_374_182),  # rounded down
        (str(MAX_SIZE), MAX_SIZE),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert read_size(text) == expected


@pytest.mark.parametrize(
    ("text", "why", "fix"),
    [
        ("-1", "cannot read size: it is negative", "write a number and a unit, such as 256MB or 512MiB"),
        (
            "1e99",
            "cannot read size: it is more than 2^63-1 bytes",
            "write a number and a unit, such as 256MB or 512MiB",
        ),
        ("9" * 4000, "cannot read size: it is not a number", "write a number and a unit, such as 256MB or 512MiB"),
        (
            str(MAX_SIZE + 1),
            "cannot read size: it is more than 2^63-1 bytes",
            "write a number and a unit, such as 256MB or 512MiB",
        ),
        ("2 GiBB", "cannot read size: unknown unit 'GiBB'", "did you mean '2GiB'?"),
        ("512mb", "cannot read size: unknown unit 'mb'", "did you mean '512MB'?"),
        ("5 apples", "cannot read size: unknown unit 'apples'", "use one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("nan", "cannot read size: it is not a number", "write a number and a unit, such as 256MB or 512MiB"),
        ("inf", "cannot read size: it is not a number", "write a number and a unit, such as 256MB or 512MiB"),
        ("", "cannot read size: it is empty", "write a number and a unit, such as 256MB or 512MiB"),
        ("1.2.3", "cannot read size: it is not a number", "write a number and a unit, such as 256MB or 512MiB"),
        ("\u0661MB", "cannot read size: it is not a number", "write a number and a unit, such as 256MB or 512MiB"),
    ],
)
def test_bad_sizes(text: str, why: str, fix: str) -> None:
    with pytest.raises(ReadError) as caught:
        read_size(text)
    assert (caught.value.why, caught.value.fix) == (why, fix)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", 10),
        ("500ms", 0.5),
        ("2m", 120),
        ("1h", 3600),
        ("1d", 86400),
        ("10", 10),
        ("0.5", 0.5),
        ("0", 0),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1m0.5s", 60.5),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert read_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-1s", "it is negative"),
        ("10sec", "unknown unit 'sec'"),
        ("30m1h", "units must go from large to small"),
        ("1h1h", "units must go from large to small"),
        ("nan", "it is not a number"),
        ("1e99", "it is more than 366 days"),
        ("400d", "it is more than 366 days"),
        ("0.0001", "it is less than a millisecond"),
        ("1h x", "it is not a number and a unit"),
        ("", "it is empty"),
    ],
)
def test_bad_durations(text: str, why: str) -> None:
    with pytest.raises(ReadError) as caught:
        read_duration(text)
    assert caught.value.why == f"cannot read duration: {why}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.25", 250), ("1", 1000), ("1.0", 1000), ("500m", 500), ("2000m", 2000), ("0.001", 1), ("0", 0)],
)
def test_cores(text: str, expected: int) -> None:
    assert read_cores(text) == expected


@pytest.mark.parametrize(
    ("text", "why", "fix"),
    [
        ("5000", "it is more than 1024 cores", "write 5000m for 5000 milli-cores"),
        ("0.0001", "it is less than a thousandth of a core", "write at least 1m"),
        (
            "2 cores",
            "unknown unit 'cores'",
            "write cores such as 0.5, milli-cores such as 500m, or a share such as 25%",
        ),
        ("-0.5", "it is negative", "write cores such as 0.5, milli-cores such as 500m, or a share such as 25%"),
    ],
)
def test_bad_cores(text: str, why: str, fix: str) -> None:
    with pytest.raises(ReadError) as caught:
        read_cores(text)
    assert (caught.value.why, caught.value.fix) == (f"cannot read cpu: {why}", fix)


@pytest.mark.parametrize(("text", "expected"), [("80%", 0.8), ("100%", 1.0), ("0.5%", 0.005), ("33.3 %", 0.333)])
def test_shares(text: str, expected: float) -> None:
    assert read_share(text) == expected


@pytest.mark.parametrize("text", ["0%", "100.1%", "101%", "-5%", "%", "80", "nan%", "1e9%", "0.00000001%"])
def test_bad_shares(text: str) -> None:
    with pytest.raises(ReadError):
        read_share(text)


@given(st.integers(0, MAX_SIZE // 1024**3), st.sampled_from(["KB", "MB", "GB", "Ki", "Mi", "GiB"]))
def test_a_size_is_exactly_number_times_unit(number: int, unit: str) -> None:
    factor = {"K": 1, "M": 2, "G": 3}[unit[0]]
    assert read_size(f"{number}{unit}") == number * (1024 if "i" in unit else 1000) ** factor


@given(st.decimals(0, 10**6, places=6))
def test_fractions_of_a_size_round_down(number: object) -> None:
    assert read_size(f"{number}MB") == math.floor(Fraction(str(number)) * 10**6)


@given(st.integers(0, 300 * 86_400_000))
def test_milliseconds_are_exact(milliseconds: int) -> None:
    assert read_duration(f"{milliseconds}ms") == milliseconds / 1000


@given(st.one_of(st.text(), st.from_regex(r"[-+]?[0-9.]{0,8}[eE]?[-+]?[0-9]{0,5} ?[A-Za-z%]{0,4}", fullmatch=True)))
def test_nothing_but_a_number_or_a_read_error(text: str) -> None:
    for read, most in ((read_size, MAX_SIZE), (read_duration, 366 * 86400), (read_cores, 1024_000), (read_share, 1)):
        try:
            value = read(text)
        except ReadError:
            continue
        assert 0 <= value <= most
