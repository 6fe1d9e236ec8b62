"""Functions between scalars and vectors: time, pi, vector, scalar, timestamp, absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import scalar, vector, window
from exporter.promql.functions.naming import NO_LABELS, without_name
from exporter.promql.model import Argument, CallSite, Scalar, Vector
from exporter.storage.model import NAME, Labels, Matcher

if TYPE_CHECKING:
    from exporter.storage.model import Bool


def time(call: CallSite, arguments: Sequence[Argument]) -> Scalar:
    """The evaluation's time, in seconds."""
    return Scalar(call.steps.times / 1000.0)


def pi(call: CallSite, arguments: Sequence[Argument]) -> Scalar:
    return Scalar(np.full(len(call.steps.times), math.pi))


def to_vector(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The scalar as a series without labels."""
    return Vector(NO_LABELS, scalar(arguments, 0)[np.newaxis, :])


def to_scalar(call: CallSite, arguments: Sequence[Argument]) -> Scalar:
    """The value of the only series; NaN where there is none or more than one."""
    given = vector(arguments)
    if given.present is None:
        if len(given.labels) == 1:
            return Scalar(given.values[0])
        return Scalar(np.full(given.values.shape[1], np.nan))
    only = given.present.sum(axis=0) == 1
    values = np.where(given.present, given.values, 0.0).sum(axis=0)
    return Scalar(np.where(only, values, np.nan))


def timestamp(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """When each sample was taken, in seconds.

    Of a selector that is the time in the store: the evaluator then hands over a vector whose values are the samples'
    times in seconds, and `call.matchers` is set. Of anything else it is the evaluation's time.
    """
    given = vector(arguments)
    values = given.values
    if call.matchers is None:
        values = np.broadcast_to(call.steps.times / 1000.0, values.shape)
    return without_name(call, given.labels, values, given.present)


def absent(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """1 where the vector is empty, under the labels that its selector asks for."""
    given = vector(arguments)
    if given.present is None:
        return _absence(call, np.full(given.values.shape[1], len(given.labels) > 0))
    return _absence(call, np.any(given.present, axis=0))


def absent_over_time(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """1 where no series has a sample in the window, under the labels that the selector asks for."""
    asked = window(arguments)
    call.budget.spend(len(asked.selection.labels) * len(asked.hi))
    counts = asked.selection.edges(asked.lo, asked.hi).counts
    return _absence(call, np.any(counts > 0, axis=0))


def _absence(call: CallSite, found: Bool) -> Vector:
    labels = call.memo.of("absent", (call.matchers,), lambda: [asked_labels(call.matchers or ())])
    return Vector(labels, np.ones((1, len(found))), ~found[np.newaxis, :])


def asked_labels(matchers: Sequence[Matcher]) -> Labels:
    """What the matchers say the series would be called: each label that is asked for by one `=` and nothing else."""
    asked: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in matchers:
        if matcher.name == NAME:
            continue
        if matcher.op == "=" and matcher.name not in seen:
            seen.add(matcher.name)
            asked[matcher.name] = matcher.value
        else:
            asked.pop(matcher.name, None)
    return tuple(sorted((name, value) for name, value in asked.items() if value))
