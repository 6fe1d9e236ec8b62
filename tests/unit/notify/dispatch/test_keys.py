from __future__ import annotations

import pytest

from exporter.notify.dispatch.keys import group_key, group_labels, labels_in
from exporter.storage.model import Labels

LABELS = (("alertname", "Slow"), ("instance", "gpu1"), ("job", "vllm"))


def test_a_group_has_the_labels_it_is_grouped_by_and_not_those_that_an_alert_lacks() -> None:
    assert group_labels(LABELS, frozenset({"alertname", "cluster"})) == (("alertname", "Slow"),)


def test_grouping_by_everything_takes_all_labels() -> None:
    assert group_labels(LABELS, None) == LABELS


def test_grouping_by_nothing_takes_none() -> None:
    assert group_key("{}", group_labels(LABELS, frozenset())) == "{}:{}"


def test_the_key_is_the_route_and_the_labels_as_go_quotes_them() -> None:
    labels = (("a", 'say "hi"\n'), ("b", "显存\x7f"))
    assert group_key('{}/{severity="critical"}', labels) == (
        '{}/{severity="critical"}:{a="say \\"hi\\"\\n", b="显存\\x7f"}'
    )


@pytest.mark.parametrize(
    "labels",
    [
        (),
        LABELS,
        LABELS[1:],
        (("a", '", b="c'), ("b", "c")),
        (("a", "x}"), ("ba", "1"), ("cba", "1")),
        (("a", "显存\x7f\n"),),
    ],
)
def test_the_labels_of_a_group_can_be_read_back_from_its_key(labels: Labels) -> None:
    key = group_key('{}/{severity="critical", a="1"}', labels)
    others = [pair for pair in (*LABELS, ("a", "1"), ("cba", "1")) if pair[0] not in dict(labels)]
    assert labels_in(key, tuple(sorted((*labels, *others)))) == labels
