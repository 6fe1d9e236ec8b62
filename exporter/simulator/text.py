"""A stand-in tokenizer and author: text to token numbers and back, and replies that are made up from a seed.

A token is a run of up to eight letters or digits with the space before it, one Chinese character, or one other
character. Its number is a checksum of its text, so the same text always gives the same numbers, and a reply that a
client sends back as history meets its own blocks in the prefix cache.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_PIECE = re.compile(rf"[{_CJK}]| ?[^\W_{_CJK}]{{1,8}}|.", re.DOTALL)
_HAS_CJK = re.compile(f"[{_CJK}]")

_ENGLISH = (
    " the a of and to in is that it for on as with was by this be at from or an are which not have can one more other"
    " when if each then use time data work system value model number line point first step result because between"
    " after before under over about into only also very most much small large simple common general local"
)
_CHINESE = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"

VOCABULARY_SIZE = 151_936


@lru_cache(maxsize=65536)
def token_number(piece: str) -> int:
    return zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY_SIZE


def tokenize(text: str) -> list[int]:
    return [token_number(piece) for piece in _PIECE.findall(text)]


def chat_tokens(messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The tokens of a conversation in a ChatML-like template, ending where the assistant's turn begins."""
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return tokenize(text + "<|im_start|>assistant\n")


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_PIECE.findall(text)))


_ENGLISH_PIECES = (*(p for p in _pieces(_ENGLISH) if len(p) > 1), ".", ",")
_CHINESE_PIECES = (*_pieces(_CHINESE), "，", "。")
_TEXT_OF = {token_number(piece): piece for piece in (*_ENGLISH_PIECES, *_CHINESE_PIECES)}


def text_of(token: int) -> str:
    """The text of a token of a reply."""
    return _TEXT_OF.get(token, " ?")


def author(seed: int, prompt_text: str) -> Callable[[int], int]:
    """A reply as a function from position to token number, in the prompt's language."""
    pieces = _CHINESE_PIECES if _HAS_CJK.search(prompt_text) else _ENGLISH_PIECES
    numbers = [token_number(piece) for piece in pieces]

    def token(index: int) -> int:
        mixed = ((seed + 1) * 0x5851F42D4C957F2D + (index + 1) * 0x14057B7EF767814F) & 0xFFFFFFFFFFFFFFFF
        return numbers[(mixed ^ (mixed >> 29)) % 1_000_003 % len(numbers)]

    return token
