"""``python -m edge_agent.services NAME [NAME...]``: several share one process. Exit codes: see ``errors``."""

from __future__ import annotations

import os
import sys

from . import notify, options
from .errors import EXIT_CONFIG, EXIT_FAILED, EXIT_STOPPED, EXIT_USAGE, StartError
from .log import DEBUG, ERROR, WARNING, configure, log
from .signals import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Service

NAMES = ("identity", "storage", "node", "ledger", "telemetry", "analytics", "timekeeper")


def main(arguments: list[str]) -> int:
    """Run the named services; the exit code."""
    if not arguments or len(set(arguments)) != len(arguments) or not set(arguments) <= set(NAMES):
        return _usage("NAME is missing, unknown or there twice")
    if len(arguments) > 1 and "timekeeper" in arguments:
        return _usage("timekeeper has a loop of its own and shares no process")
    together = "+".join(arguments)
    configure(together, os.environ)
    stop = Stop()  # before the imports that take time
    notifier = notify.from_environment()
    try:
        told = options.read_all(arguments, os.environ, os.geteuid())
        for each in told:
            if each.ignored:
                log(each.name, f"not acted on: {', '.join(each.ignored)}", WARNING)
            log(each.name, f"data in {each.data_dir}, socket in {each.run_dir}, uid {os.geteuid()}", DEBUG)
        _run(told, notifier, stop)
    except StartError as error:
        log(together, str(error), ERROR)
        return EXIT_CONFIG
    except OSError as error:
        log(together, f"cannot go on: {error}; fix: see the message", ERROR)
        return EXIT_FAILED
    finally:
        notifier.close()
        stop.close()
    return EXIT_STOPPED


def _usage(why: str) -> int:
    names = ", ".join(NAMES)
    sys.stderr.write(f"cannot run a service: {why}; fix: python -m edge_agent.services {{{names}}} ...\n")
    return EXIT_USAGE


def _run(told: list[options.Options], notifier: notify.Notifier, stop: Stop) -> None:
    if told[0].name == "timekeeper":  # nobody asks it anything: no ZeroMQ
        from .timekeeper import Timekeeper

        Timekeeper(told[0], notifier, stop).run()
        return
    from .loop import Loop

    Loop([_made(each) for each in told], notifier, stop).run()


def _made(told: options.Options) -> Service:
    """The service of this name; what it needs is imported now and no earlier."""
    if told.name == "identity":
        from .identity import Identity

        return Identity(told)
    if told.name == "storage":
        from .storage import Storage

        return Storage(told)
    if told.name == "ledger":
        from .ledger import Ledger

        return Ledger(told)
    if told.name == "telemetry":
        from .telemetry import Telemetry

        return Telemetry(told)
    if told.name == "analytics":
        from .analytics import Analytics

        return Analytics(told)
    from .node import Node

    return Node(told)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
