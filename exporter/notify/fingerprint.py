"""The numbers by which Alertmanager knows label sets and groups.

Source: `LabelSet.Fingerprint` in https://github.com/prometheus/common/blob/main/model/signature.go, with 64-bit FNV-1a
(http://www.isthe.com/chongo/tech/comp/fnv/).
"""

from __future__ import annotations

from functools import lru_cache

from exporter.storage.model import Labels

_OFFSET = 14695981039346656037
_PRIME = 1099511628211
_MASK = (1 << 64) - 1
_SEPARATOR = 255


_REMEMBERED = 20_000
"""Label sets: an alert is made anew each time that something of it changes, and its number costs more than all the rest."""


@lru_cache(_REMEMBERED)
def fingerprint(labels: Labels) -> int:
    """The fingerprint of labels that are sorted by name; half a surrogate pair, which is no text, has one as well."""
    total = _OFFSET
    for name, value in labels:
        for part in (name, value):
            for octet in part.encode("utf-8", "surrogatepass"):
                total = (total ^ octet) * _PRIME & _MASK
            total = (total ^ _SEPARATOR) * _PRIME & _MASK
    return total


def show(number: int) -> str:
    """As payloads and the API write it: 16 hexadecimal digits."""
    return f"{number:016x}"
