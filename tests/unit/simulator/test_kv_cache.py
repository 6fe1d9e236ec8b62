from __future__ import annotations

import pytest

from exporter.simulator.kv_cache import BlockPool, chain_hashes


def test_a_block_is_either_free_or_in_use_and_usage_says_how_many() -> None:
    pool = BlockPool(8, 16)
    blocks = pool.acquire((), 3)
    assert blocks is not None
    assert (pool.free, pool.usage) == (5, 3 / 8)
    pool.release(blocks)
    assert (pool.free, pool.usage) == (8, 0.0)


def test_what_does_not_fit_changes_nothing() -> None:
    pool = BlockPool(4, 16)
    assert pool.acquire((), 5) is None
    assert pool.free == 4


def test_a_published_block_is_found_after_its_owner_is_gone_and_until_it_is_handed_out_again() -> None:
    pool = BlockPool(2, 4)
    first, second = chain_hashes([1, 2, 3, 4, 5, 6, 7, 8], 4)
    blocks = pool.acquire((), 2)
    assert blocks is not None
    pool.publish(blocks[0], first)
    pool.publish(blocks[1], second)
    pool.release(blocks)
    assert pool.find_prefix([first, second]) == blocks
    assert pool.find_prefix([first, 999]) == blocks[:1]
    assert pool.find_prefix([999, second]) == []
    # The end of a sequence is given away before its beginning.
    assert pool.acquire((), 1) == [blocks[1]]
    assert pool.find_prefix([first, second]) == blocks[:1]


def test_cached_blocks_that_nobody_uses_count_against_what_is_free() -> None:
    pool = BlockPool(2, 4)
    (content,) = chain_hashes([1, 2, 3, 4], 4)
    blocks = pool.acquire((), 1)
    assert blocks is not None
    pool.publish(blocks[0], content)
    pool.release(blocks)
    assert pool.acquire(blocks, 2) is None
    assert pool.acquire(blocks, 1) is not None
    assert pool.free == 0


def test_a_shared_block_is_free_only_when_its_last_user_lets_go() -> None:
    pool = BlockPool(4, 4)
    (content,) = chain_hashes([1, 2, 3, 4], 4)
    blocks = pool.acquire((), 1)
    assert blocks is not None
    pool.publish(blocks[0], content)
    assert pool.acquire(pool.find_prefix([content]), 0) == blocks
    pool.release(blocks)
    assert pool.free == 3
    pool.release(blocks)
    assert pool.free == 4
    with pytest.raises(RuntimeError, match="released more often"):
        pool.release(blocks)


def test_without_prefix_caching_nothing_is_found() -> None:
    pool = BlockPool(2, 4, prefix_caching=False)
    (content,) = chain_hashes([1, 2, 3, 4], 4)
    blocks = pool.acquire((), 1)
    assert blocks is not None
    pool.publish(blocks[0], content)
    assert pool.find_prefix([content]) == []


def test_hashes_cover_full_blocks_and_everything_before_them() -> None:
    one = list(chain_hashes(range(10), 4))
    other = list(chain_hashes([9, *range(1, 10)], 4))
    assert len(one) == 2
    assert not set(one) & set(other)
    assert one == list(chain_hashes(range(8), 4))
