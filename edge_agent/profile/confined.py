"""Who a service runs as and what it may not do or see, where the profile leaves that to us."""

from __future__ import annotations

from collections.abc import Callable, Collection

from .. import model
from ..callers import USER
from ..text import CAPABILITIES
from .directories import Directories
from .sandbox import DAC_READ_SEARCH, Sandbox, inside
from .service import Service
from .system import Account, System
from .tree import Path


class Confined:
    """One profile's decisions. ``notes`` says what a person should know of them, once they are all made."""

    def __init__(self, system: System, directories: Directories, report: Callable[[Path, str, str], None]) -> None:
        self._system = system
        self._directories = directories
        self._report = report
        self._own = system.own_account()
        self._needed = (*system.homes, directories.data, directories.run)
        self._as_root: dict[str, list[str]] = {}  # why -> services
        self._reading: list[str] = []

    def account(self, name: str, bundled: str) -> Account | None:
        """The user of a bundled service for which the profile names none; None: the agent's own."""
        if self._own.uid != 0 or bundled == model.TIMEKEEPER:  # whom the agent's control socket lets in
            return None
        user = USER.format(bundled)
        account = self._system.account(user)
        if account is None:
            why = "they have no users edge-agent-NAME; fix: useradd --system --no-create-home edge-agent-NAME for each"
        else:
            closed = self._closed(account)
            if not closed:
                return account
            why = f"their users may not enter {closed}; fix: chmod o+x {closed}, or install edge-agent elsewhere"
        self._as_root.setdefault(why, []).append(name)
        return None

    def together(self, name: str, members: Collection[str]) -> Account | None:
        """The user of the process that these services share, and that of none of them."""
        for names in (*self._as_root.values(), self._reading):
            names[:] = [each for each in names if each not in members]
        self._as_root = {why: names for why, names in self._as_root.items() if names}
        return self.account(name, name)

    def sandbox(self, path: Path, service: Service, made: model.Service) -> model.Sandbox:
        """The sandbox of ``made``: the one asked for, for a bundled service all of it, else none."""
        asked = service.sandbox
        if asked is None and service.bundled is None:
            return model.Sandbox()
        chosen = asked or Sandbox()
        hidden = chosen.hidden()
        seen = self._needed if service.bundled is not None else ()
        visible = tuple(each for each in seen if any(inside(each, place) for place in hidden))
        sandbox = chosen.made(visible, required=asked is not None and asked.required)
        if service.bundled is None:
            self._check(path, sandbox, hidden, made)
        elif asked is None and self._own.uid == 0 and not made.uid and self._closed(self._own):
            # A checkout in somebody's home: root without this may enter it no more than anybody else.
            self._reading.append(made.name)
            sandbox = sandbox._replace(capabilities=(DAC_READ_SEARCH,))
        return sandbox

    def _check(self, path: Path, sandbox: model.Sandbox, hidden: tuple[str, ...], made: model.Service) -> None:
        path = (*path, "sandbox")
        for key in ("writable", "visible"):
            for index, each in enumerate(getattr(sandbox, key)):
                if not self._system.exists(each):
                    self._report((*path, key, index), "there is nothing of this name", f"create it: mkdir -p {each}")
        shown = sandbox.visible + sandbox.writable
        for what, used in (("program", made.argv[0] if made.argv else ""), ("working directory", made.cwd)):
            place = next((each for each in hidden if inside(used, each)), None)
            if place is not None and not any(inside(used, each) for each in shown):
                key = "private_tmp" if "tmp" in place or "shm" in place else "protect_home"
                why = f"its {what} {used} is in {place}, which {key} hides"
                self._report(path, why, f"add visible: [{used}] to sandbox, or {key}: false")

    def _closed(self, account: Account) -> str:
        """A directory that the account needs and may not enter; '' when it may enter all."""
        return next((each for each in self._needed if not self._system.reaches(account, each)), "")

    def notes(self) -> list[str]:
        """Sentences."""
        said = []
        for why, names in self._as_root.items():
            verb = "runs" if len(names) == 1 else "run"
            said.append(f"{', '.join(names)} {verb} as root, whom a sandbox holds less well: {why}")
        if self._reading:
            verb = "keeps" if len(self._reading) == 1 else "keep"
            capability = f"CAP_{CAPABILITIES[DAC_READ_SEARCH].upper()}"
            said.append(
                f"{', '.join(self._reading)} {verb} {capability}: root needs it to enter {self._closed(self._own)}"
            )
        return said
