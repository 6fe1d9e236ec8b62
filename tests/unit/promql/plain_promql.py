"""PromQL's operators one step and one sample at a time, over dictionaries: slow, and easy to believe.

`expressions()` makes random well-formed expressions, each with a function that evaluates it at one time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from plain_store import PlainStore, fits

from exporter.storage.model import Labels, Matcher

LOOKBACK = 300_000
MINUTE = 60_000


class ClashError(Exception):
    """What Prometheus refuses to evaluate."""


@dataclass
class Moment:
    """Where and when an expression is evaluated; `start` and `end` are the whole query's."""

    store: PlainStore
    now: int
    start: int
    end: int

    def at(self, now: int) -> Moment:
        return Moment(self.store, now, self.start, self.end)


Vector = dict[Labels, float]


@dataclass
class Expression:
    """Text, and what it means at a moment: a dictionary, or a float for a scalar."""

    text: str
    evaluate: Callable[[Moment], Any]

    def __repr__(self) -> str:
        return self.text


def nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def only(labels: Labels, names: list[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in names)


def without(labels: Labels, names: list[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in names)


def gathered(pairs: list[tuple[Labels, float]]) -> Vector:
    """A vector, in which no label set comes twice."""
    if len(dict(pairs)) < len(pairs):
        raise ClashError("same labelset")
    return dict(pairs)


def divide(a: float, b: float) -> float:
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def modulo(a: float, b: float) -> float:
    if b == 0 or math.isinf(a) or math.isnan(a) or math.isnan(b):
        return math.nan
    return math.fmod(a, b)


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": divide,
    "%": modulo,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}


def newest(store: PlainStore, matchers: list[Matcher], when: int) -> Vector:
    found = {}
    for labels, points in store.series.items():
        if all(fits(matcher, labels) for matcher in matchers):
            inside = [value for time, value in points if when - LOOKBACK < time <= when]
            if inside and inside[-1] is not None:
                found[labels] = inside[-1]
    return found


# --- making expressions

MATCHERS = st.sampled_from(
    [
        ("a", [Matcher("__name__", "=", "a")]),
        ("b", [Matcher("__name__", "=", "b")]),
        ("c", [Matcher("__name__", "=", "c")]),
        ('a{x="1"}', [Matcher("__name__", "=", "a"), Matcher("x", "=", "1")]),
        ('b{y!="1"}', [Matcher("__name__", "=", "b"), Matcher("y", "!=", "1")]),
        ('{__name__=~"a|b"}', [Matcher("__name__", "=~", "a|b")]),
        ('{x=~".+",y!~"2"}', [Matcher("x", "=~", ".+"), Matcher("y", "!~", "2")]),
    ]
)
LABEL_LISTS = st.lists(st.sampled_from(["x", "y"]), unique=True, max_size=2)


@st.composite
def modifiers(draw: st.DrawFn) -> tuple[str, Callable[[Moment], int]]:
    """`offset` and `@`, and the time that they look at."""
    offset = draw(st.sampled_from([0, 0, 0, 1, 7, -2]))
    at = draw(st.sampled_from([None, None, None, "start()", "end()", "600", "-5"]))
    text = (f" @ {at}" if at else "") + (f" offset {offset}m" if offset else "")

    def time(moment: Moment) -> int:
        fixed = {None: moment.now, "start()": moment.start, "end()": moment.end}
        return (fixed[at] if at in fixed else int(at) * 1000) - offset * MINUTE

    return text, time


@st.composite
def selectors(draw: st.DrawFn) -> Expression:
    text, matchers = draw(MATCHERS)
    ending, time = draw(modifiers())
    return Expression(text + ending, lambda moment: newest(moment.store, matchers, time(moment)))


NUMBERS = st.sampled_from(["0", "1", "2", "-1", "0.5", "3e0", "0x2", "NaN", "Inf", "-Inf", "1m"])


def number(text: str) -> float:
    return {"0x2": 2.0, "1m": 60.0}[text] if text in ("0x2", "1m") else float(text)


@st.composite
def scalars(draw: st.DrawFn) -> Expression:
    text = draw(NUMBERS)
    value = number(text)
    kind = draw(st.sampled_from(["plain", "plain", "sum", "time", "compared"]))
    if kind == "time":
        return Expression("time()", lambda moment: moment.now / 1000)
    if kind == "sum":
        return Expression(f"({text} + 2)", lambda moment: value + 2)
    if kind == "compared":
        return Expression(f"({text} < bool 2)", lambda moment: float(value < 2))
    return Expression(text, lambda moment: value)


@st.composite
def negatives(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    part = draw(inner)
    return Expression(
        f"-({part.text})",
        lambda moment: gathered(
            [(nameless(labels), -value) for labels, value in part.evaluate(moment).items()]
        ),
    )


@st.composite
def with_scalars(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    vector, scalar = draw(inner), draw(scalars())
    swapped = draw(st.booleans())
    operator = draw(st.sampled_from([*ARITHMETIC, *COMPARISONS]))
    as_bool = operator in COMPARISONS and draw(st.booleans())
    sides = (scalar.text, f"({vector.text})") if swapped else (f"({vector.text})", scalar.text)

    def evaluate(moment: Moment) -> Vector:
        result = []
        other = scalar.evaluate(moment)
        for labels, value in vector.evaluate(moment).items():
            pair = (other, value) if swapped else (value, other)
            if operator in ARITHMETIC:
                result.append((nameless(labels), ARITHMETIC[operator](*pair)))
            elif as_bool:
                result.append((nameless(labels), float(COMPARISONS[operator](*pair))))
            elif COMPARISONS[operator](*pair):
                result.append((labels, value))
        return gathered(result)

    return Expression(f"{sides[0]} {operator}{' bool' * as_bool} {sides[1]}", evaluate)


@st.composite
def with_vectors(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    left, right = draw(inner), draw(inner)
    operator = draw(st.sampled_from([*ARITHMETIC, *COMPARISONS]))
    as_bool = operator in COMPARISONS and draw(st.booleans())
    on, names = draw(st.booleans()), draw(LABEL_LISTS)
    group = draw(st.sampled_from(["", "", "group_left", "group_right"]))
    include = [] if not group else [name for name in draw(LABEL_LISTS) if not (on and name in names)]
    words = f"{'on' if on else 'ignoring'}({','.join(names)}) {group}{'(' + ','.join(include) + ')' if group else ''}"

    def signature(labels: Labels) -> Labels:
        return only(labels, names) if on else without(labels, [*names, "__name__"])

    def evaluate(moment: Moment) -> Vector:
        lefts, rights = left.evaluate(moment), right.evaluate(moment)
        if not lefts or not rights:
            return {}
        many, one = (rights, lefts) if group == "group_right" else (lefts, rights)
        partners: dict[Labels, Labels] = {}
        for labels in one:
            if signature(labels) in partners:
                raise ClashError("duplicate series")
            partners[signature(labels)] = labels
        result, taken = [], set()
        for labels, value in many.items():
            partner = partners.get(signature(labels))
            if partner is None:
                continue
            pair = (one[partner], value) if group == "group_right" else (value, one[partner])
            if operator in ARITHMETIC:
                keep, number = True, ARITHMETIC[operator](*pair)
            else:
                keep, number = COMPARISONS[operator](*pair), pair[0]
            if as_bool:
                keep, number = True, float(keep)
            named = nameless(labels) if operator in ARITHMETIC or as_bool else labels
            if not group:
                named = only(named, names) if on else without(named, names)
            for name in include:
                value_of = dict(partner).get(name, "")
                named = (
                    tuple(sorted({**dict(named), name: value_of}.items()))
                    if value_of
                    else without(named, [name])
                )
            clash = (signature(labels), named if group else None)
            if clash in taken:
                raise ClashError("multiple matches")
            taken.add(clash)
            if keep:
                result.append((named, number))
        return gathered(result)

    return Expression(f"({left.text}) {operator}{' bool' * as_bool} {words} ({right.text})", evaluate)


@st.composite
def sets(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    left, right = draw(inner), draw(inner)
    operator = draw(st.sampled_from(["and", "or", "unless", "AND"]))
    on, names = draw(st.booleans()), draw(LABEL_LISTS)

    def signature(labels: Labels) -> Labels:
        return only(labels, names) if on else without(labels, [*names, "__name__"])

    def evaluate(moment: Moment) -> Vector:
        lefts, rights = left.evaluate(moment), right.evaluate(moment)
        in_left, in_right = ({signature(labels) for labels in side} for side in (lefts, rights))
        if operator == "or":
            extra = {labels: value for labels, value in rights.items() if signature(labels) not in in_left}
            return lefts | extra
        wanted = operator.lower() == "and"
        return {labels: value for labels, value in lefts.items() if (signature(labels) in in_right) == wanted}

    words = f"{'on' if on else 'ignoring'}({','.join(names)})"
    return Expression(f"({left.text}) {operator} {words} ({right.text})", evaluate)


def smallest(values: list[float]) -> float:
    real = [value for value in values if not math.isnan(value)]
    return min(real) if real else math.nan


def largest(values: list[float]) -> float:
    return -smallest([-value for value in values])


def quantile(level: float, values: list[float]) -> float:
    if math.isnan(level):
        return math.nan
    if not 0 <= level <= 1:
        return math.copysign(math.inf, level)
    ordered = sorted(values, key=lambda value: (not math.isnan(value), 0 if math.isnan(value) else value))
    rank = level * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


def variance(values: list[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / len(values)


EXACT: dict[str, Callable[[list[float]], float]] = {
    "sum": lambda values: sum(values),
    "avg": lambda values: sum(values) / len(values),
    "count": len,
    "group": lambda values: 1.0,
    "min": smallest,
    "max": largest,
}
ROUNDED: dict[str, Callable[[list[float]], float]] = {
    "stdvar": variance,
    "stddev": lambda values: math.sqrt(variance(values)),
    "quantile": lambda values: quantile(0.3, values),
}


@st.composite
def aggregations(
    draw: st.DrawFn, inner: st.SearchStrategy[Expression], operators: dict[str, Any] = EXACT
) -> Expression:
    part = draw(inner)
    operator = draw(st.sampled_from(sorted(operators)))
    names = draw(LABEL_LISTS)
    how = draw(st.sampled_from(["", "by", "without"]))

    def evaluate(moment: Moment) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in part.evaluate(moment).items():
            key = (
                without(labels, [*names, "__name__"])
                if how == "without"
                else only(labels, names if how else [])
            )
            groups.setdefault(key, []).append(value)
        return {labels: float(operators[operator](values)) for labels, values in groups.items()}

    clause = f" {how} ({', '.join(names)}) " if how else ""
    level = "0.3, " if operator == "quantile" else ""
    return Expression(f"{operator}{clause}({level}{part.text})", evaluate)


OVER_TIME: dict[str, Callable[[list[float]], float]] = {
    "sum_over_time": lambda values: sum(values),
    "count_over_time": len,
    "last_over_time": lambda values: values[-1],
    "max_over_time": largest,
}


@st.composite
def subqueries(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    part = draw(inner)
    function = draw(st.sampled_from(sorted(OVER_TIME)))
    span, step = draw(st.sampled_from([(3, 1), (10, 3), (7, None), (1, 5)]))
    ending, time = draw(modifiers())

    def evaluate(moment: Moment) -> Vector:
        end = time(moment)
        every = (step or 1) * MINUTE
        seen: dict[Labels, list[float]] = {}
        for now in range((end - span * MINUTE) // every * every, end + 1, every):
            if end - span * MINUTE < now <= end:
                for labels, value in part.evaluate(moment.at(now)).items():
                    seen.setdefault(labels, []).append(value)
        keep = function == "last_over_time"
        return gathered(
            [
                (labels if keep else nameless(labels), float(OVER_TIME[function](values)))
                for labels, values in seen.items()
            ]
        )

    window = f"[{span}m:{f'{step}m' if step else ''}]"
    return Expression(f"{function}(({part.text}){window}{ending})", evaluate)


def expressions(depth: int = 3) -> st.SearchStrategy[Expression]:
    """Instant vectors."""
    if depth == 0:
        return selectors()
    inner = expressions(depth - 1)
    return st.one_of(
        selectors(),
        negatives(inner),
        with_scalars(inner),
        with_vectors(inner),
        sets(inner),
        aggregations(inner),
        subqueries(inner),
    )


@st.composite
def stores(draw: st.DrawFn) -> PlainStore:
    """A few series of a, b and c over 20 minutes, with gaps, NaN and staleness markers."""
    store = PlainStore()
    value = st.one_of(st.integers(-3, 5).map(float), st.sampled_from([math.nan, math.inf, 0.5]))
    for _ in range(draw(st.integers(0, 6))):
        pairs = {
            "__name__": draw(st.sampled_from("abc")),
            "x": draw(st.sampled_from("12")),
            "y": draw(st.sampled_from(["1", "2", ""])),
        }
        labels = tuple(sorted((name, one) for name, one in pairs.items() if one))
        times = draw(st.lists(st.integers(-1, 20), min_size=1, max_size=6, unique=True).map(sorted))
        store.series[labels] = [
            (time * MINUTE + 7, draw(st.one_of(value, value, value, st.none()))) for time in times
        ]
    return store
