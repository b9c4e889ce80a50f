"""Exit codes: the one place that says what they mean. ``edge-agent help exits`` prints this table."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
NO_AGENT = 3
CONFIGURATION = 4
BUDGET = 5
PERMISSION = 6
BUSY = 7
TIMEOUT = 8
INTERRUPTED = 130
BROKEN_PIPE = 141

MEANING = {
    OK: "done; for check: all is enforced; with --fix: the kernel's command line is right, or will be",
    FAILED: "failed, rolled back, or not ready; for check: something is not enforced; with --fix: nothing was changed",
    USAGE: "the command line is wrong",
    NO_AGENT: "no agent is running",
    CONFIGURATION: "the profile, a variable or a flag is wrong; nothing was changed",
    BUDGET: "the profile does not fit the budget; nothing was changed",
    PERMISSION: "this user may not",
    BUSY: "the agent is busy with a switch, or with too many clients",
    TIMEOUT: "no answer, or the state was not reached in time",
    INTERRUPTED: "interrupted by Ctrl-C (128 + SIGINT)",
    BROKEN_PIPE: "the reader of the output went away (128 + SIGPIPE)",
}

BY_CODE = {
    "permission": PERMISSION,
    "denied": PERMISSION,
    "busy": BUSY,
    "timeout": TIMEOUT,
}
"""Error codes of the control protocol; every other one is FAILED."""


def text() -> str:
    """The table."""
    return "exit codes:\n" + "".join(f"  {code:<4} {meaning}\n" for code, meaning in MEANING.items())
