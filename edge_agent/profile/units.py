"""Sizes, durations, processor amounts and shares as people write them. Exact: no floating point on the way.

Sizes: SI (kB, MB, GB: powers of 1000) and IEC (KiB or Ki: powers of 1024); a bare K, M, G is decimal, as in Kubernetes
(https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/). Processor: 1.5 cores, or 1500m.
"""

from __future__ import annotations

import re

from .problems import ReadError, nearest

MAX_SIZE = 2**63 - 1
"""What a cgroup file takes as bytes."""
MAX_SECONDS = 366 * 86400.0
MAX_CORES = 1024

_NUMBER = re.compile(r"([0-9]{0,40})(?:\.([0-9]{0,40}))?(?:[eE]([+-]?[0-9]{1,4}))?(?=$|[^0-9.])")
_STEPS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SIZE_UNITS = {"": 1, "B": 1}
for _letter, _step in _STEPS.items():
    if _step:
        _SIZE_UNITS[_letter] = _SIZE_UNITS[_letter + "B"] = 1000**_step
        _SIZE_UNITS[_letter + "i"] = _SIZE_UNITS[_letter + "iB"] = 1024**_step
_SIZE_UNITS["k"] = _SIZE_UNITS["kB"] = 1000
_SIZE_NAMES = ("B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB")
_DURATION_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}  # milliseconds
_DURATION_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([a-zA-Z]+)")

_SIZE_FIX = "write a number and a unit, such as 256MB or 512MiB"
_DURATION_FIX = "write a number and a unit, such as 10s, 500ms, 2m or 1h"
_CORES_FIX = "write cores such as 0.5, milli-cores such as 500m, or a share such as 25%"


def read_size(text: str) -> int:
    """Bytes. Raises ReadError."""
    whole, fraction, exponent, unit = _number(text, "size", _SIZE_FIX)
    factor = _SIZE_UNITS.get(unit)
    if factor is None:
        raise ReadError(f"cannot read size: unknown unit '{unit[:20]}'", lambda: _unit_fix(text, unit))
    value = _times(whole, fraction, exponent, factor)
    if value > MAX_SIZE:
        raise ReadError("cannot read size: it is more than 2^63-1 bytes", _SIZE_FIX)
    return value


def read_share(text: str) -> float:
    """A share of the total, 0 < x <= 1, from '80%'. Raises ReadError."""
    fix = "write a share from 1% to 100%"
    whole, fraction, exponent, unit = _number(text, "share", fix)
    if unit != "%":
        raise ReadError("cannot read share: no % sign", fix)
    millionths = _times(whole, fraction, exponent, 10_000)
    if not 0 < millionths <= 1_000_000:
        raise ReadError("cannot read share: it must be more than 0% and at most 100%", fix)
    return millionths / 1_000_000


def read_cores(text: str) -> int:
    """Milli-cores, from cores (0.25) or milli-cores (250m). Raises ReadError."""
    whole, fraction, exponent, unit = _number(text, "cpu", _CORES_FIX)
    if unit not in ("", "m"):
        raise ReadError(f"cannot read cpu: unknown unit '{unit[:20]}'", _CORES_FIX)
    milli = _times(whole, fraction, exponent, 1 if unit else 1000)
    if milli > MAX_CORES * 1000:
        suggestion = (
            f"write {int(whole)}m for {int(whole)} milli-cores"
            if not unit and exponent == 0 and int(whole) <= 10**6
            else _CORES_FIX
        )
        raise ReadError(f"cannot read cpu: it is more than {MAX_CORES} cores", suggestion)
    if milli == 0 and (int(whole) or int(fraction or 0)):
        raise ReadError("cannot read cpu: it is less than a thousandth of a core", "write at least 1m")
    return milli


def read_duration(text: str) -> float:
    """Seconds, from 10s, 500ms, 2m, 1h, 1d, 1h30m, or a plain number of seconds. Raises ReadError."""
    if text[-1:].isalpha() and text[:1].isdigit():
        milliseconds = _parts(text)
    else:
        whole, fraction, exponent, unit = _number(text, "duration", _DURATION_FIX)
        if unit:
            raise ReadError(f"cannot read duration: unknown unit '{unit[:20]}'", _DURATION_FIX)
        milliseconds = _times(whole, fraction, exponent, 1000)
        if milliseconds == 0 and (int(whole) or int(fraction or 0)):
            raise ReadError("cannot read duration: it is less than a millisecond", _DURATION_FIX)
    if milliseconds > MAX_SECONDS * 1000:
        raise ReadError("cannot read duration: it is more than 366 days", _DURATION_FIX)
    return milliseconds / 1000


def _parts(text: str) -> int:
    total, end, last = 0, 0, 0
    while end < len(text):
        match = _DURATION_PART.match(text, end)
        if match is None:
            raise ReadError("cannot read duration: it is not a number and a unit", _DURATION_FIX)
        unit = _DURATION_UNITS.get(match[2])
        if unit is None:
            raise ReadError(f"cannot read duration: unknown unit '{match[2][:20]}'", "use one of ms, s, m, h, d")
        if last and unit >= last:
            raise ReadError("cannot read duration: units must go from large to small", "write it as 1h30m")
        whole, _, fraction = match[1].partition(".")
        total += _times(whole, fraction, 0, unit)
        end, last = match.end(), unit
    return total


def _number(text: str, what: str, fix: str) -> tuple[str, str, int, str]:
    """Whole digits, fraction digits, exponent and unit of an amount that is not negative."""
    stripped = text.strip(" ")
    if not stripped:
        raise ReadError(f"cannot read {what}: it is empty", fix)
    if stripped[0] == "-" and stripped[1:2].isdigit():
        raise ReadError(f"cannot read {what}: it is negative", fix)
    match = _NUMBER.match(stripped)
    if match is None or not (match[1] or match[2]):
        raise ReadError(f"cannot read {what}: it is not a number", fix)
    return match[1] or "0", match[2] or "", int(match[3] or 0), stripped[match.end() :].strip(" ")


def _times(whole: str, fraction: str, exponent: int, factor: int) -> int:
    """The number times ``factor``, rounded down. Exponents are cut where nothing we read can reach."""
    digits = int(whole + fraction)
    power = max(-100, min(100, exponent)) - len(fraction)
    scale: int = 10 ** abs(power)
    return digits * factor * scale if power >= 0 else digits * factor // scale


def _unit_fix(text: str, unit: str) -> str:
    near = nearest(unit, _SIZE_NAMES)
    if near:
        number = text.strip(" ")[: -len(unit)].rstrip(" ")
        return f"did you mean '{number}{near}'?"
    return "use one of " + ", ".join(_SIZE_NAMES)
