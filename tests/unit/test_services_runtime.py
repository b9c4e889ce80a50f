"""What the common ground of a service decides before the service itself is asked."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.services import notify
from edge_agent.services.loop import Loop
from edge_agent.services.node import Node
from edge_agent.services.options import Options
from edge_agent.services.runtime import Runtime
from edge_agent.services.signals import Stop

USERS = {901: "edge-agent-storage", 902: "edge-agent-telemetry", 1000: "mary"}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    stop = Stop()
    service = Node(Options("node", str(tmp_path / "data"), str(tmp_path / "run")))
    loop = Loop([service], notify.Notifier(None), stop)
    yield Runtime(service, loop)
    loop.gate.close()
    loop.context.destroy(linger=0)
    stop.close()


@pytest.mark.parametrize(
    ("sender", "op", "may"),
    [
        ("uid:0", "key", True),
        (f"uid:{os.geteuid()}", "key", True),
        ("uid:901", "fetch", True),
        ("uid:901", "metrics", True),
        ("uid:901", "key", False),
        ("uid:902", "fetch", False),
        ("uid:1000", "key", True),
        ("uid:4294967294", "key", True),  # of no account: let in by the group all the same
        ("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "key", True),  # a client of the port: its key is its permission
    ],
)
def test_services_may_ask_for_what_is_written_down_and_people_for_all(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, sender: str, op: str, may: bool
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name=USERS[uid]))
    assert runtime._may_ask(sender, op) is may
