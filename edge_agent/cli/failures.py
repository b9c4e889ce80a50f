"""Exceptions of the other rooms as sentences and exit codes. Imported when something has failed."""

from __future__ import annotations

from ..admission import BudgetError
from ..codec import PlanError
from ..control.client import AgentError, NotRunningError
from ..enforcement import EnforcementError
from ..profile.problems import ProfileError
from . import exits
from .context import Context


def explain(context: Context, error: Exception) -> tuple[int, list[str]]:
    """(exit code, sentences); no sentence for an error that is this program's own fault."""
    verb = context.task
    if isinstance(error, NotRunningError):
        return exits.NO_AGENT, [
            (
                f"cannot {verb}: no agent is running with {context.directories.run}; "
                "fix: start it by `edge-agent --profile NAME`, or name its directory in EDGE_AGENT_RUN_DIR"
            )
        ]
    if isinstance(error, AgentError):
        text = error.why if error.why.startswith("cannot ") else f"cannot {verb}: {error.why}"
        return exits.BY_CODE.get(error.code, exits.FAILED), [f"{text}; fix: {error.fix}" if error.fix else text]
    if isinstance(error, ProfileError):
        return exits.CONFIGURATION, [problem.text() for problem in error.problems]
    if isinstance(error, BudgetError):
        return exits.BUDGET, [*error.problems, *error.table.splitlines()]
    if isinstance(error, EnforcementError):
        return exits.CONFIGURATION, list(error.problems)
    if isinstance(error, PlanError):
        text = str(error) if str(error).startswith("cannot ") else f"cannot {verb}: the plan is not usable: {error}"
        return exits.CONFIGURATION, [text]
    if isinstance(error, PermissionError):
        return exits.PERMISSION, [f"cannot {verb}: {_os_error(error)}; fix: use sudo, or other directories"]
    if isinstance(error, OSError):
        return exits.FAILED, [f"cannot {verb}: {_os_error(error)}"]
    return exits.FAILED, []


def _os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
