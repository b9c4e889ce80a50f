"""``simulate``: what the governor would decide over a recorded or a written trace, before a policy is trusted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import BinaryIO

from .. import simulation, trace
from ..host import facts as machine
from ..model import Plan
from ..simulation import Result
from ..text import table
from . import compiling, exits, selection
from .context import CommandError, Context, say, show_json
from .statusview import wrapped


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "names", metavar="[PROFILE] TRACE", nargs="+", help="a profile's name or file; a trace, - for standard input"
    )
    selection.arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON: bytes, milli-cores, seconds of the trace")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "The trace's format:\n\n" + (trace.__doc__ or "")


def run(context: Context, options: argparse.Namespace) -> int:
    """Compile, play, show. The machine is the trace's."""
    path = _words(options)
    try:
        stream = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        why = f"cannot simulate: {path}: {error.strerror}; fix: name a trace, as `edge-agent record` makes it"
        raise CommandError(exits.CONFIGURATION, why) from None
    with stream:
        plan, header, result = play(context, options, path, stream)
    if context.json:
        show_json(to_dict(plan, path, header, result))
    else:
        say(*render(plan, path, header, result))
    return exits.OK


def _words(options: argparse.Namespace) -> str:
    """The trace's path; a profile before it is put where the other verbs have it."""
    *before, path = options.names
    if len(before) > 1 or (before and (options.profile or options.config)):
        raise CommandError(
            exits.USAGE, f"cannot simulate: {before[-1]!r} is not expected; fix: give one profile, then one trace"
        )
    if before:
        name = before[0]
        by_path = "/" in name or name.endswith((".yaml", ".yml"))
        options.config, options.profile = (name, None) if by_path else (None, name)
    return str(path)


def play(
    context: Context, options: argparse.Namespace, path: str, stream: BinaryIO
) -> tuple[Plan, trace.Header, Result]:
    """The whole trace, or nothing: raises CommandError with file and line."""
    try:
        header, rest = trace.read(_lines(stream))
        facts = machine.gather(data_dir=context.directories.data)._replace(memory=header.machine, cpus=header.cpus)
        plan = compiling.compile_selection(context, selection.choose(context, options), options, facts)
        if header.kind == trace.RECORDED:
            return plan, header, simulation.replay(trace.looks(rest, header), plan)
        names = [service.name for service in plan.services]
        return plan, header, simulation.play(header, trace.written(rest, names), plan)
    except trace.TraceError as error:
        raise CommandError(
            exits.CONFIGURATION, f"cannot simulate: {path}:{error.line}: {error.why}; fix: {error.fix}"
        ) from None
    except simulation.TooMuchError as error:
        raise CommandError(exits.FAILED, f"cannot simulate: {path}: {error}; fix: a shorter trace") from None


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """One more byte than a line may have shows that it has too many."""
    while line := stream.readline(trace.LONGEST_LINE + 1):
        yield line


def to_dict(plan: Plan, path: str, header: trace.Header, result: Result) -> dict[str, object]:
    """For JSON."""
    return {
        "profile": plan.profile,
        "source": plan.source,
        "trace": path,
        "kind": header.kind,
        "seconds": result.seconds,
        "looks": result.looks,
        "decisions": [happening._asdict() for happening in result.happenings],
        "services": {name: tally._asdict() for name, tally in result.services.items()},
        "unknown": list(result.unknown),
    }


def render(plan: Plan, path: str, header: trace.Header, result: Result) -> list[str]:
    """One line a decision, then a table of services."""
    lines = [f"profile {plan.profile} ({plan.source}), {header.kind} trace {path}, {clock(result.seconds)}", ""]
    for happening in result.happenings:
        service = f" {happening.service}" if happening.service else ""
        resource = "" if happening.resource == "memory" else f" ({happening.resource})"
        lines += wrapped(f"{clock(happening.at)}  {happening.kind}{service}{resource}: {happening.text}")
    if not result.happenings:
        lines.append("nothing to decide")
    if result.unknown:
        lines += ["", *wrapped(f"not in this profile, and left alone: {', '.join(result.unknown)}")]
    header_row = ("service", "squeezed", "frozen", "shed", "killed", "away")
    rows = [
        (name, str(tally.squeezed), str(tally.frozen), str(tally.shed), str(tally.killed), clock(tally.away))
        for name, tally in result.services.items()
    ]
    return [*lines, "", *table(header_row, rows, "<>>>>>")]


def clock(seconds: float) -> str:
    """``26:03:04.50``: hours, so that three days are still one number to sort by."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest / 100:05.2f}"
