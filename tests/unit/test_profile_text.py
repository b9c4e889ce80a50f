"""YAML text: what it becomes, where it stands, and what is refused before anything is built from it."""

from __future__ import annotations

import time

import pytest

from edge_agent.profile.problems import Place, ProfileError
from edge_agent.profile.text import MAX_BYTES, parse, parse_value
from edge_agent.profile.tree import Leaf, Map, Seq, data, find, merge, without

from .profiles import cases, problems


def tree(text: str) -> Map:
    top, found = parse(text.encode(), "p.yaml")
    assert not found
    return top


def plain(node: object) -> object:
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(item) for item in node]
    return node.text if isinstance(node, Leaf) else node


def test_every_key_and_value_knows_its_place() -> None:
    top = tree("a:\n  b: 1\n  c: [x,\n      y]\n")
    assert top.keys["a"] == Place("p.yaml", 1, 1)
    inner = top.entries["a"]
    assert isinstance(inner, Map)
    assert inner.keys["b"] == Place("p.yaml", 2, 3)
    assert inner.entries["b"] == Leaf("1", Place("p.yaml", 2, 6))
    items = inner.entries["c"]
    assert isinstance(items, Seq)
    assert [item.place for item in items.items] == [Place("p.yaml", 3, 7), Place("p.yaml", 4, 7)]


def test_scalars_stay_as_written() -> None:
    assert plain(data(tree("{a: 1.10, b: yes, c: 0755, d: 1:30, e: 2024-01-01, f: '5', g: !!str 7}"))) == {
        "a": "1.10", "b": "yes", "c": "0755", "d": "1:30", "e": "2024-01-01", "f": "5", "g": "7",
    }  # fmt: skip


def test_null_is_as_if_the_key_were_not_there_but_nothing_is_not() -> None:
    assert plain(data(tree("{a: null, b: ~, c: , d: 'null', e: ''}"))) == {"c": "", "d": "null", "e": ""}


def test_anchors_and_merge_keys() -> None:
    top = tree("base: &b {x: 1, y: 2}\nmore: &m {z: 3, x: 9}\none: {<<: *b, y: 7}\ntwo: {<<: [*b, *m]}\nthree: *b\n")
    found = plain(data(top))
    assert isinstance(found, dict)
    assert found["one"] == {"x": "1", "y": "7"}
    assert found["two"] == {"x": "1", "y": "2", "z": "3"}
    assert found["three"] == {"x": "1", "y": "2"}


def test_an_alias_may_be_a_key() -> None:
    assert plain(data(tree("a: &k name\n*k : 1\n"))) == {"a": "name", "name": "1"}


def test_merge_takes_the_upper_value_and_its_place() -> None:
    merged = merge(tree("a: {x: 1, y: [1, 2]}\nb: 1\nc: 1"), tree("\n\na: {y: [3], z: 4}\nb: null"))
    assert plain(data(merged)) == {"a": {"x": "1", "y": ["3"], "z": "4"}, "c": "1"}
    assert find(merged, ("a", "z"))[0].place.line == 3
    assert find(merged, ("a", "x"))[0].place.line == 1


def test_find_stops_where_the_path_ends() -> None:
    node, place, taken = find(tree("a:\n  b: 1"), ("a", "b", "c"))
    assert (plain(node), place.line, taken) == ("1", 2, 2)


def test_without_takes_out_keys_and_items() -> None:
    top = tree("a: {b: 1, c: [x, y, z]}\nd: 1")
    assert plain(data(without(top, [("a", "b"), ("a", "c", 1), ("d",), ("e", "f")]))) == {"a": {"c": ["x", "z"]}}
    assert plain(data(top)) == {"a": {"b": "1", "c": ["x", "y", "z"]}, "d": "1"}


def test_a_value_of_a_variable_is_yaml_too() -> None:
    node = parse_value("[a, b: c]", Place("EDGE_AGENT_X"))
    assert plain(data(Map(Place(), {"v": node}))) == {"v": ["a", {"b": "c"}]}
    assert node.place == Place("EDGE_AGENT_X")
    with pytest.raises(ProfileError) as caught:
        parse_value("[a", Place("EDGE_AGENT_X"))
    assert str(caught.value).startswith("EDGE_AGENT_X: not valid YAML: a bracket that is never closed")


@pytest.mark.parametrize(("text", "message"), cases("syntax.txt"))
def test_bad_text(text: str, message: str) -> None:
    assert message in problems(text)


@pytest.mark.parametrize(("text", "what"), [("\0", "a NUL byte"), ("\x07", "the control character U+0007")])
def test_control_characters(text: str, what: str) -> None:
    fix = "remove it; in a double-quoted text write \\x00 and the like"
    assert problems("services: {}\n# " + text) == [
        f"p.yaml:2: cannot read profile: {what} is not allowed in YAML; fix: {fix}"
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null", "{}"])
def test_an_empty_profile(text: str) -> None:
    assert problems(text) == [
        "p.yaml: the profile is empty: it has no services; fix: see the shipped profiles for an example"
    ]


def test_text_that_is_not_utf8() -> None:
    assert problems(b"services:\n  a: \xff") == [
        "p.yaml:2: cannot read profile: byte 0xff is not UTF-8; fix: save the file as UTF-8"
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert plain(data(parse(b"\xef\xbb\xbfa:\r\n  b: 1\r\n", "p")[0])) == {"a": {"b": "1"}}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)
TOO_MANY = "more than 100000 values once aliases are expanded"
HOSTILE = {
    "10 MB": ("# " + "x" * 10_000_000, "cannot read profile: it is larger than 1048576 bytes (1 MiB)"),
    "aliases that explode": (BOMB, TOO_MANY),
    "deep flow lists": ("a: " + "[" * 100_000, "nested more than 40 levels deep"),
    "deep flow mappings": ("a: " + "{x: " * 100_000, "nested more than 40 levels deep"),
    "deep block lists": ("a: " + "- " * 100_000, "a list cannot start on this line"),
    "deep blocks": ("\n".join(" " * i + "k:" for i in range(1000)), "nested more than 40 levels deep"),
    "many values": ("a: [" + "x," * 300_000 + "]", TOO_MANY),
    "many keys": ("a:\n" + "".join(f" k{i}:\n" for i in range(110_000)), TOO_MANY),
    "merged aliases that explode": (
        "a: &a {" + ",".join(f"k{i}: 1" for i in range(50_000)) + "}\n" + "b: [" + "{<<: *a}," * 50_000 + "]",
        TOO_MANY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_fast(name: str) -> None:
    text, why = HOSTILE[name]
    began = time.process_time()
    assert why in problems(text)[0]
    assert time.process_time() - began < 6.0  # seconds of processor; below 1 on a quiet machine


def test_the_largest_text_allowed_is_read() -> None:
    text = "a: 1\n#"
    assert plain(data(parse((text + "x" * (MAX_BYTES - len(text))).encode(), "p")[0])) == {"a": "1"}


WRONG = {
    "keys": "services: {node: {" + ",".join(f"resorces{i}: 1" for i in range(20_000)) + "}}",
    "choices": "services: {" + ",".join(f"s{i}: {{command: x, mode: x{i}}}" for i in range(5000)) + "}",
    "sizes": "services: {" + ",".join(f"s{i}: {{command: x, resources: {{memory: 1xb}}}}" for i in range(5000)) + "}",
    "names": "services: {" + ",".join(f"s{i}: {{command: x, depends_on: [a, b, c, d]}}" for i in range(2000)) + "}",
    "programs": "services: {" + ",".join(f"s{i}: {{command: nonsuch}}" for i in range(5000)) + "}",
    "duplicates": "services: {node: {" + ",".join(["nice: 1"] * 20_000) + "}}",
}


@pytest.mark.parametrize("name", WRONG)
def test_thousands_of_mistakes_are_cut_before_they_cost_minutes(name: str) -> None:
    began = time.process_time()
    found = problems(WRONG[name])
    assert time.process_time() - began < 8.0  # seconds of processor; about 1 on a quiet machine
    assert 50 <= len(found) - 1 <= 100
    assert found[-1] == "p.yaml: there are more problems than those above; fix: correct these first"


def test_messages_stay_one_short_line() -> None:
    (message,) = problems('services: {s: {command: x, mode: "a\\n\\e[2J' + "b" * 5000 + '"}}')
    assert message.startswith("p.yaml:1: services.s.mode: 'a\\n\\x1b[2Jbbb")
    assert message.isprintable()
    assert len(message) < 250
