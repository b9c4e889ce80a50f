"""The small lab: the same kernel, image and payload, but the runner alone instead of systemd; up in seconds.

For tests that need a real kernel and cgroups v2 and nothing else, such as the host's contract tests:
``python -m tests.vm.kernel -- python3 -m pytest tests/contract -q``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import LabError
from .lab import Lab, Result, run_arguments, run_command
from .payload import PROJECT


def run(
    command: str | Sequence[str],
    *,
    project: Path = PROJECT,
    memory_mib: int = 1024,
    cpus: int = 2,
    append: str = "psi=1",
    timeout: float = 300.0,
    env: Mapping[str, str] | None = None,
    results: Path | None = None,
    echo: IO[bytes] | None = None,
) -> Result:
    """Run one command on a fresh kernel; see Lab.run."""
    lab = Lab(project, memory_mib=memory_mib, cpus=cpus, append=append, kernel_only=True)
    return lab.run(command, timeout=timeout, env=env, results=results, echo=echo)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 125 when the lab itself failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.kernel", description="A kernel, cgroups v2, one command.")
    run_arguments(parser)
    try:
        return run_command(parser.parse_args(arguments), kernel_only=True)
    except LabError as error:
        print(error, file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
