"""Light and full machines joined in memory: time is a number, frames arrive at once, or as a test wills it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_agent.notes import Verifier
from edge_agent.peers import events, full, light
from edge_agent.peers.inquiries import Inquiry
from edge_agent.peers.session import Target
from tests.fakes.logs import Machine

KEY = "L" * 40


class FullSide:
    """A full node and its machine. ``meddle`` may change each frame to a light node, None drops it."""

    def __init__(
        self, name: str, machine: Machine, keys: Iterable[str] = (KEY,), logs: Iterable[Verifier] = ()
    ) -> None:
        self.machine = machine
        self.full = full.Full(name, "0.1.0", keys, 1000, logs)
        self.meddle: Callable[[bytes], bytes | None] = lambda frame: frame
        self.alive = True
        self.received: list[bytes] = []
        self.kept: list[full.Keep] = []

    def hear(self, key: str, route: bytes, data: bytes, now: float) -> list[bytes]:
        """One frame in; the frames that come back."""
        if not self.alive:
            return []
        self.received.append(data)
        return self._run(self.full.step(full.Heard(key, route, data), now), now)

    def _run(self, actions: list[full.Action], now: float) -> list[bytes]:
        out = []
        for action in actions:
            if isinstance(action, full.Send):
                frame = self.meddle(action.data)
                out += [] if frame is None else [frame]
            elif isinstance(action, full.Ask):
                told = full.Told(action.job, self.machine.answer(action.call))
                out += self._run(self.full.step(told, now), now)
            elif isinstance(action, full.Keep):
                self.kept.append(action)
        return out


class Net:
    """One light node and the full nodes it knows."""

    def __init__(
        self, *fulls: FullSide, logs: Iterable[Verifier] = (), heartbeat: float = 60.0, key: str = KEY
    ) -> None:
        self.fulls, self.key = fulls, key
        self.now = 0.0
        targets = [Target(f"tcp://full{index}:1", "F" * 40) for index in range(len(fulls))]
        self.status: dict[str, int | str | bool] = {"node": "n", "release": "0.1.0", "every": max(1, int(heartbeat))}
        self.light = light.Light(targets, heartbeat, lambda: 0.5, self.status, logs)
        self.open: dict[int, bytes] = {}
        self.routes = 0
        self.saved: list[events.Save] = []
        self.kept: list[events.Keep] = []
        self.notes: list[str] = []
        self.done: dict[object, events.Done | events.Failed] = {}
        self.sent: list[tuple[int, bytes]] = []

    def run(self, event: events.Event) -> None:
        """One event and all that follows at once."""
        queue: list[tuple[events.Event, bytes]] = [(event, b"")]
        while queue:
            first, route = queue.pop(0)
            if isinstance(first, events.Heard) and route and self.open.get(first.peer) != route:
                continue  # the connection is closed
            for action in self.light.step(first, self.now):
                queue += self._act(action)

    def _act(self, action: events.Action) -> list[tuple[events.Event, bytes]]:
        if isinstance(action, events.Open):
            assert action.peer not in self.open, "a second connection to a peer"
            self.routes += 1
            self.open[action.peer] = b"r%d" % self.routes
        elif isinstance(action, events.Close):
            del self.open[action.peer]
        elif isinstance(action, events.Send):
            assert action.peer in self.open, "sent without a connection"
            self.sent.append((action.peer, action.data))
            side = self.fulls[action.peer]
            route = self.open[action.peer]
            frames = side.hear(self.key, route, action.data, self.now)
            return [(events.Heard(action.peer, frame), route) for frame in frames]
        elif isinstance(action, events.Save):
            self.saved.append(action)
        elif isinstance(action, events.Keep):
            self.kept.append(action)
        elif isinstance(action, events.Note):
            self.notes.append(action.text)
        else:
            assert action.token not in self.done, "answered twice"
            self.done[action.token] = action
        return []

    def tick(self, seconds: float = 0.0) -> None:
        """Time passes, each deadline on its way is kept."""
        end = self.now + seconds
        for _ in range(100_000):
            due = self.light.deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.run(events.Tick())
        else:
            raise AssertionError("the machine spins")
        self.now = end

    def ask(self, inquiry: Inquiry) -> events.Done | events.Failed | None:
        """What comes of it, at once."""
        self.run(events.Asked(inquiry))
        return self.done.get(inquiry.token)

    def states(self) -> list[str]:
        return [view.state for view in self.light.views()]
