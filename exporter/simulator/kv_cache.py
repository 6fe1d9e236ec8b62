"""A paged KV cache: fixed-size blocks, reference counts, and prefix reuse through chained block hashes.

As in vLLM, a block that nobody uses keeps its content until it is handed out again, least recently used first,
so that a later prompt with the same beginning finds it. Usage counts only blocks in use.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence


class BlockPool:
    """`blocks` blocks of `block_size` tokens, numbered from 0. Every block is either free or referenced, never both."""

    def __init__(self, blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError("a KV cache needs at least one block of at least one token")
        self.blocks = blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._references = [0] * blocks
        self._hash_of: list[int | None] = [None] * blocks
        self._block_of: dict[int, int] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of the blocks in use, 0 to 1."""
        return 1.0 - len(self._free) / self.blocks

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def find_prefix(self, hashes: Sequence[int]) -> list[int]:
        """The cached blocks that hold the longest known beginning of a sequence with these block hashes."""
        if not self.prefix_caching:
            return []
        found = itertools.takewhile(lambda block: block is not None, map(self._block_of.get, hashes))
        return [block for block in found if block is not None]

    def acquire(self, cached: Sequence[int], fresh: int) -> list[int] | None:
        """Reference the `cached` blocks and take `fresh` new ones; None, and nothing changed, when they do not fit."""
        revived = sum(1 for block in cached if not self._references[block])
        if fresh + revived > len(self._free):
            return None
        for block in cached:
            if not self._references[block]:
                del self._free[block]
            self._references[block] += 1
        taken = list(cached)
        for _ in range(fresh):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._references[block] = 1
            taken.append(block)
        return taken

    def publish(self, block: int, content: int) -> None:
        """Let others find a block that is now full, under the hash of everything up to its end."""
        if self.prefix_caching and content not in self._block_of:
            self._forget(block)
            self._hash_of[block] = content
            self._block_of[content] = block

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each; the end of a sequence is reused before its beginning, which others may share."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] < 0:
                raise RuntimeError(f"block {block} released more often than it was taken")
            if not self._references[block]:
                self._free[block] = None

    def _forget(self, block: int) -> None:
        content = self._hash_of[block]
        if content is not None:
            del self._block_of[content]
            self._hash_of[block] = None


def chain_hashes(tokens: Sequence[int], block_size: int, previous: int = 0) -> Iterator[int]:
    """One hash per full block; each covers everything before it, so that equal hashes mean equal beginnings.

    Built on hashes of ints only, which do not change between runs.
    """
    for start in range(0, len(tokens) - block_size + 1, block_size):
        previous = hash((previous, *tokens[start : start + block_size]))
        yield previous
