"""A cache's accounts never exceed the bound, and the least recently used goes first."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.services.lru import BLOCK, ENTRY, Lru, TooLargeError, cost

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "abort", "touch", "remove"]),
        st.binary(min_size=1, max_size=1),
        st.integers(0, 90_000),
    ),
    max_size=80,
)


@given(OPERATIONS, st.integers(0, 200_000))
def test_used_and_reserved_stay_within_the_bound_whatever_happens(
    operations: list[tuple[str, bytes, int]], limit: int
) -> None:
    cache, model = Lru(limit), dict[bytes, int]()  # the model keeps insertion order, most recently used last
    under_way: list[tuple[bytes, int]] = []

    def evict(keys: list[bytes]) -> None:
        for key in keys:
            assert key == next(iter(model)), "not the least recently used"
            del model[key]

    for verb, key, size in operations:
        if verb == "write":
            try:
                evict(cache.reserve(cost(size)))
            except TooLargeError:
                assert cost(size) + sum(amount for _, amount in under_way) > limit
            else:
                under_way.append((key, cost(size)))
        elif verb == "abort" and under_way:
            cache.release(under_way.pop()[1])
        elif verb == "touch":
            if under_way:  # one of them becomes a blob
                done, amount = under_way.pop(0)
                cache.release(amount)
                model.pop(done, None)
                evicted = cache.add(done, amount)
                model[done] = amount
                evict(evicted)
            cache.touch(key)
            if key in model:
                model[key] = model.pop(key)
        elif verb == "remove":
            cache.remove(key)
            model.pop(key, None)
        assert cache.used + cache.reserved <= limit
        assert cache.used == sum(model.values())
        assert cache.reserved == sum(amount for _, amount in under_way)
        assert len(cache) == len(model)


def test_a_blob_costs_whole_blocks_and_at_least_one() -> None:
    assert [cost(size) for size in (0, 1, BLOCK, BLOCK + 1)] == [BLOCK, BLOCK, BLOCK, 2 * BLOCK]


def test_a_used_blob_outlives_an_older_unused_one() -> None:
    cache = Lru(3 * BLOCK)
    for key in (b"a", b"b", b"c"):
        assert cache.add(key, BLOCK) == []
    cache.touch(b"a")
    assert cache.reserve(BLOCK) == [b"b"]
    assert cache.reserve(BLOCK) == [b"c"]
    assert b"a" in cache


def test_nothing_is_evicted_for_a_blob_that_cannot_fit() -> None:
    cache = Lru(2 * BLOCK)
    cache.add(b"a", BLOCK)
    with pytest.raises(TooLargeError):
        cache.reserve(3 * BLOCK)
    assert b"a" in cache


def test_a_found_blob_larger_than_the_bound_is_itself_evicted() -> None:
    assert Lru(BLOCK).add(b"a", 2 * BLOCK) == [b"a"]


def test_a_pinned_blob_is_never_evicted_and_counts() -> None:
    cache = Lru(3 * BLOCK)
    for key in (b"a", b"b", b"c"):
        cache.add(key, BLOCK)
    cache.pin(b"a")
    cache.pin(b"gone")
    cache.touch(b"a")
    assert (cache.pinned, cache.used) == (BLOCK, 3 * BLOCK)
    assert cache.reserve(2 * BLOCK) == [b"b", b"c"]
    assert not cache.fits(BLOCK)
    with pytest.raises(TooLargeError):
        cache.reserve(BLOCK)
    cache.release(2 * BLOCK)
    assert cache.unpin(b"a") == []
    assert cache.reserve(3 * BLOCK) == [b"a"]
    assert (cache.pinned, cache.used) == (0, 0)


def test_pins_beyond_the_bound_stay_and_let_nothing_else_in() -> None:
    cache = Lru(BLOCK)
    assert cache.add(b"a", BLOCK, pinned=True) == []
    assert cache.add(b"b", BLOCK, pinned=True) == []
    assert cache.add(b"c", BLOCK) == [b"c"]
    assert cache.unpin(b"a") == [b"a"]
    cache.remove(b"b")
    assert (cache.pinned, cache.used) == (0, 0)


def test_the_number_of_blobs_is_bounded() -> None:
    cache = Lru(100 * BLOCK, most=2)
    assert [cache.add(key, BLOCK) for key in (b"a", b"b", b"c")] == [[], [], [b"a"]]
    cache.pin(b"b")
    cache.pin(b"c")
    assert not cache.fits(BLOCK)


def test_the_memory_of_a_blob_is_what_it_is_said_to_be() -> None:
    count = 100_000
    tracemalloc.start()
    cache = Lru(count * BLOCK)
    for number in range(count):
        cache.add(number.to_bytes(32, "big"), BLOCK)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < ENTRY * count
