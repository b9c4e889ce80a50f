"""``python -m edge_agent.services NAME``. Exit codes: see ``errors``."""

from __future__ import annotations

import os
import sys

from . import notify, options
from .errors import EXIT_CONFIG, EXIT_FAILED, EXIT_STOPPED, EXIT_USAGE, StartError
from .log import DEBUG, ERROR, WARNING, configure, log
from .signals import Stop

NAMES = ("identity", "storage", "node", "timekeeper")


def main(arguments: list[str]) -> int:
    """Run the named service; the exit code."""
    if len(arguments) != 1 or arguments[0] not in NAMES:
        names = ", ".join(NAMES)
        sys.stderr.write(
            f"cannot run a service: NAME is missing or unknown; fix: python -m edge_agent.services {{{names}}}\n"
        )
        return EXIT_USAGE
    name = arguments[0]
    configure(name, os.environ)
    stop = Stop()  # before the imports that take time
    notifier = notify.from_environment()
    try:
        told = options.read(name, os.environ, os.geteuid())
        if told.ignored:
            log(name, f"not acted on: {', '.join(told.ignored)}", WARNING)
        log(name, f"data in {told.data_dir}, socket in {told.run_dir}, uid {os.geteuid()}", DEBUG)
        _run(name, told, notifier, stop)
    except StartError as error:
        log(name, str(error), ERROR)
        return EXIT_CONFIG
    except OSError as error:
        log(name, f"cannot go on: {error}; fix: see the message", ERROR)
        return EXIT_FAILED
    finally:
        notifier.close()
        stop.close()
    return EXIT_STOPPED


def _run(name: str, told: options.Options, notifier: notify.Notifier, stop: Stop) -> None:
    if name == "timekeeper":  # nobody asks it anything: no ZeroMQ
        from .timekeeper import Timekeeper

        Timekeeper(told, notifier, stop).run()
        return
    from .runtime import Runtime, Service

    service: Service
    if name == "identity":
        from .identity import Identity

        service = Identity(told)
    elif name == "storage":
        from .storage import Storage

        service = Storage(told)
    else:
        from .node import Node

        service = Node(told)
    Runtime(service, notifier, stop).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
