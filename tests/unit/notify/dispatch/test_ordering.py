from __future__ import annotations

import functools
import itertools

from exporter.notify.dispatch.ordering import before_key, in_order
from exporter.notify.model import Alert
from exporter.storage.model import Labels


def made(**labels: str) -> Alert:
    return Alert(tuple(sorted(labels.items())), (), 0.0)


def before(one: Labels, other: Labels) -> bool:
    """`LabelSet.Before`, word by word as its documentation has it."""
    if len(one) != len(other):
        return len(one) < len(other)
    mine, its = dict(one), dict(other)
    for name in sorted({*mine, *its}):
        if name not in mine:
            return True
        if name not in its:
            return False
        if mine[name] != its[name]:
            return mine[name] < its[name]
    return False


def test_job_and_instance_come_first_and_who_lacks_them_last() -> None:
    alerts = [
        made(alertname="A"),
        made(alertname="A", instance="b"),
        made(alertname="Z", instance="a", job="vllm"),
        made(alertname="A", instance="b", job="vllm"),
        made(alertname="A", job="vllm"),
        made(alertname="A", instance="z", job="dcgm"),
    ]
    assert [dict(alert.labels) for alert in in_order(alerts)] == [
        {"alertname": "A", "instance": "z", "job": "dcgm"},
        {"alertname": "Z", "instance": "a", "job": "vllm"},
        {"alertname": "A", "instance": "b", "job": "vllm"},
        {"alertname": "A", "job": "vllm"},
        {"alertname": "A", "instance": "b"},
        {"alertname": "A"},
    ]


def test_the_rest_is_ordered_as_label_sets_are() -> None:
    names = ("a", "b", "c", "zone")
    sets = [
        tuple(zip(chosen, values, strict=True))
        for size in range(4)
        for chosen in itertools.combinations(names, size)
        for values in itertools.product(("1", "2", "显"), repeat=size)
    ]
    expected = sorted(sets, key=functools.cmp_to_key(lambda one, other: -1 if before(one, other) else 1))
    shuffled = sets[::-1]
    assert sorted(shuffled, key=before_key(sets)) == expected
