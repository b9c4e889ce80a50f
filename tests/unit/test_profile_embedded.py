"""Bundled services that share a process, and who may call whom."""

from __future__ import annotations

import json

import pytest

from edge_agent.callers import CALLS, may_ask
from edge_agent.demand import Demand
from edge_agent.profile.service import DEFAULT_IMPORTANCE
from tests.unit.profiles import load_text, problems

BOTH = """
services:
  identity: {mode: embedded, port: 50001, resources: {memory: {request: 10MB, limit: 32MB}, cpu: 100m}}
  storage: {mode: embedded, depends_on: identity, resources: {memory: {request: 20MB, limit: 64MB}, cpu: 200m}}
  web: {command: [run], depends_on: [storage, identity]}
"""


def demands(text: str) -> dict[str, Demand]:
    return {demand.service.name: demand for demand in load_text(text).demands}


def test_they_are_one_service_with_the_sum_of_their_budgets() -> None:
    made = demands(BOTH)
    assert list(made) == ["embedded", "web"]
    one = made["embedded"]
    assert one.memory_request
    assert one.memory_limit
    assert one.cpu_limit
    assert (one.memory_request.absolute, one.memory_limit.absolute) == (30_000_000, 96_000_000)
    assert one.cpu_limit.absolute == 300
    assert one.service.argv[-3:] == ("edge_agent.services", "identity", "storage")
    assert one.service.depends_on == ()
    assert one.service.importance == DEFAULT_IMPORTANCE["identity"]
    assert one.service.oom_score_adj == 0
    assert made["web"].service.depends_on == ("embedded",)


def test_each_is_told_its_own_and_keeps_its_own_directories() -> None:
    service = demands(BOTH)["embedded"].service
    told = json.loads(dict(service.env)["EDGE_AGENT_SERVICE_OPTIONS"])
    assert {name: each["port"] for name, each in told.items()} == {"identity": 50001, "storage": None}
    assert told["storage"]["data_dir"] == "/var/lib/edge-agent/services/storage"
    assert "/run/edge-agent/bundled/identity" in service.directories
    assert "/run/edge-agent/bundled/storage" in service.directories


def test_their_process_has_a_user_of_its_own() -> None:
    service = demands(BOTH)["embedded"].service
    assert (service.uid, service.gid, dict(service.env)["USER"]) == (909, 909, "edge-agent-embedded")


def test_one_alone_is_its_own_process() -> None:
    assert list(demands("services: {identity: {mode: embedded}, storage: {}}")) == ["identity", "storage"]


def test_without_a_bound_of_one_all_have_none() -> None:
    text = "services: {identity: {mode: embedded}, storage: {mode: embedded, resources: {memory: 64MB}}}"
    one = demands(text)["embedded"]
    assert one.memory_limit is None
    assert one.memory_request
    assert one.memory_request.absolute == 64_000_000


@pytest.mark.parametrize(
    ("identity", "storage", "said"),
    [
        ("user: redis", "", "user differs from that of identity"),
        ("", "environment: {A: b}", "environment differs"),
        ("", "sandbox: {protect_home: false}", "sandbox differs"),
        ("", "bundled: identity", "identity runs identity in the same process"),
        ("resources: {memory: 10%}", "resources: {memory: 10MB}", "cannot be added up"),
    ],
)
def test_what_a_process_has_only_once_must_be_the_same(identity: str, storage: str, said: str) -> None:
    text = f"services:\n  identity: {{mode: embedded, {identity}}}\n  storage: {{mode: embedded, {storage}}}\n"
    assert any(said in problem for problem in problems(text)), problems(text)


def test_a_ring_that_only_sharing_makes_is_refused() -> None:
    text = """
services:
  identity: {mode: embedded}
  web: {command: [run], depends_on: identity}
  storage: {mode: embedded, depends_on: web}
"""
    assert any("depends on itself" in problem for problem in problems(text))


def test_a_schedule_cannot_run_a_part_of_a_process() -> None:
    text = BOTH + "schedule: [{name: night, from: 1:00, to: 2:00, services: storage}]\n"
    assert any("shares a process with others" in problem for problem in problems(text))


# -- who may call whom


def test_a_caller_is_in_the_group_of_whom_it_calls_and_nobody_else_is() -> None:
    made = demands("services: {identity: {}, storage: {}, node: {}}")
    groups = {name: set(each.service.groups) - {7} for name, each in made.items()}  # 7: of every user, here
    assert groups == {"identity": set(), "storage": {901, 903}, "node": {901, 902}}


def test_the_group_is_that_under_which_the_other_runs() -> None:
    made = demands("services: {storage: {user: redis}, node: {}}")
    assert 101 in made["node"].service.groups
    assert 903 in made["storage"].service.groups


def test_who_is_off_is_not_called_and_who_shares_a_process_needs_no_group() -> None:
    assert set(demands("services: {storage: {enabled: false}, node: {}}")["node"].service.groups) == {7}
    text = "services: {storage: {mode: embedded}, node: {mode: embedded}, identity: {}}"
    assert set(demands(text)["embedded"].service.groups) == {7, 901}


def test_the_table_names_bundled_services_only() -> None:
    named = set(CALLS) | {callee for callees in CALLS.values() for callee in callees}
    assert named <= set(DEFAULT_IMPORTANCE)


@pytest.mark.parametrize(
    ("user", "callee", "op", "may"),
    [
        ("edge-agent-storage", "node", "fetch", True),
        ("edge-agent-node", "identity", "sign", False),
        ("edge-agent-node", "identity", "token", False),
        ("edge-agent-node", "storage", "delete", False),
        ("edge-agent-node", "storage", "get", True),
        ("edge-agent-telemetry", "ledger", "metrics", True),
        ("edge-agent-telemetry", "ledger", "append", False),
        ("edge-agent-identity", "storage", "get", False),
        ("edge-agent-embedded", "identity", "enrol", True),
        ("edge-agent-embedded", "identity", "sign", False),
        ("edge-agent-", "identity", "sign", False),
        ("edge-agent-node-", "storage", "get", False),
        ("mary", "identity", "sign", True),  # whom the administrator has put into the group
    ],
)
def test_a_service_may_ask_for_what_is_written_down(user: str, callee: str, op: str, may: bool) -> None:
    assert may_ask(user, callee, op) is may
