"""``edge-agent``: find the verb, import its module, run it, turn every failure into a sentence and an exit code.

The way from a compiled plan (``edge-agent --plan FILE``) to the resident, or to a running agent, comes before
everything else: it costs a device's boot, and the time of a switch, so it imports neither argparse nor a verb.
"""

from __future__ import annotations

import os
import sys

from . import exits
from .context import DEFAULT, CommandError, complain, make

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from .compiled import Options


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. ``argv`` without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if any(word.startswith("--plan") for word in words):
            from . import compiled

            short = compiled.options(words)
            code = None if short is None else _run(DEFAULT, short, compiled.run)
            if code is not None:
                return code  # else the long way must be taken
        from .parsing import UsageError, parse

        try:
            verb, options, run = parse(words)
        except UsageError as error:
            complain([str(error)])
            return exits.USAGE
        return _run(verb, options, run) or exits.OK
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush finds a reader
        return exits.BROKEN_PIPE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.OK


def _run(verb: str, options: argparse.Namespace | Options, run: Callable[..., int | None]) -> int | None:

    context = make(verb, options, os.environ)
    try:
        return run(context, options)
    except CommandError as error:
        complain(error.lines)
        return error.code
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        from .failures import explain

        code, lines = explain(context, error)
        if not lines:
            raise
        complain(lines)
        return code


if __name__ == "__main__":
    sys.exit(main())
