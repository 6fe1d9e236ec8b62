"""What an expression needs to be judged: where its alert ends and this is not there, the data went away, and it may go on.

A rule that finds nothing may have found that all is well, or have had nothing to look at. Prometheus makes no difference;
whoever tells people that a trouble is over must. Pure: over the plan that a query was compiled to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporter.alerting.alerts import ALERTS, ALERTS_FOR_STATE
from exporter.promql.aggregate import Aggregation, Grouping, Quantile
from exporter.promql.calls import Call
from exporter.promql.matching import Matching, VectorOperation
from exporter.promql.operators import MixedOperation, Negative, ScalarOperation
from exporter.promql.plan import Node, Once, Text
from exporter.promql.ranking import CountValues, Rank
from exporter.promql.selectors import RangeSelector, SampleTimes, VectorSelector, When
from exporter.promql.sets import SetOperation
from exporter.promql.subquery import Subquery
from exporter.storage.model import NAME, Matcher

NEED_NONE = frozenset({"absent", "absent_over_time"})
"""Functions that speak of what is not there: whatever the data, they can be judged."""
NEED_TWO = frozenset(
    {
        "delta",
        "deriv",
        "double_exponential_smoothing",
        "holt_winters",
        "idelta",
        "increase",
        "irate",
        "predict_linear",
        "rate",
    }
)
"""Functions that give nothing for a window with a single sample."""
WRITE_LABEL = {"label_replace": 1, "label_join": 1, "histogram_quantile": None, "histogram_fraction": None}
"""Functions that change a label: which argument names it; None: it is `le`."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A series of this selector that has not ended, with `count` samples in the last `reach` ms (None: the lookback)."""

    matchers: tuple[Matcher, ...]
    when: When
    reach: int | None = None
    count: int = 1

    @property
    def name(self) -> str:
        """The metric's name; empty where the selector does not say one."""
        return next((one.value for one in self.matchers if one.name == NAME and one.op == "="), "")


@dataclass(frozen=True, slots=True, eq=False)
class Every:
    """All of these; none is needed where there are none."""

    parts: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Some:
    """Any one of these."""

    parts: tuple[Need, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A part whose series have the alert's values only of these labels, or (`kept` false) of all others."""

    part: Need
    names: frozenset[str]
    kept: bool


@dataclass(frozen=True, slots=True, eq=False)
class Then:
    """A part, at the end of a subquery's window."""

    part: Need
    when: When


Need = Sample | Every | Some | Seen | Then

NOTHING = Every()


def needs(node: Node) -> Need:
    """What must be there for the node to be judged.

    Left of `unless` is needed and right of it is not; both sides of `and`, of arithmetic and of a comparison are, and any
    side of `or` that needs something; see `Ground.bears` for which of them.

    What this does not see is a part of the data that vanishes: `sum by (job) (x) > 10` is judged as long as one of a
    job's series is there, so where another one goes that made up most of the sum, the alert is over. Whether that is an
    end or a loss nobody can say: series go all the time for good, as that of a model that is not served any more.
    """
    match node:
        case VectorSelector(matchers=matchers, when=when):
            return _sample(Sample(matchers, when))
        case RangeSelector(matchers=matchers, when=when, range=reach):
            return _sample(Sample(matchers, when, reach))
        case SampleTimes(selector=selector):
            return needs(selector)
        case Once(part=part) | Negative(part=part):
            return needs(part)
        case Subquery(part=part, when=when):
            return _then(needs(part), when)
        case ScalarOperation(left=left, right=right) | MixedOperation(left=left, right=right):
            return _every((needs(left), needs(right)))
        case VectorOperation(left=left, right=right, matching=matching):
            one, other = _sides(matching)
            return _every((_seen(needs(left), *one), _seen(needs(right), *other)))
        case SetOperation():
            return _set_operation(node)
        case Aggregation(part=part, grouping=grouping):
            return _grouped(needs(part), grouping)
        case Quantile(part=part, grouping=grouping, parameter=parameter):
            return _every((needs(parameter), _grouped(needs(part), grouping)))
        case Rank(part=part, parameter=parameter):
            return _every((needs(parameter), needs(part)))
        case CountValues(part=part, grouping=grouping, label=label):
            return _seen(_grouped(needs(part), grouping), frozenset({label}), kept=False)
        case Call():
            return _call(node)
    return NOTHING


def _sample(sample: Sample) -> Need:
    # Alerts that do not fire have no such series: that they are not there says it all.
    return NOTHING if sample.name in (ALERTS, ALERTS_FOR_STATE) else sample


def _set_operation(node: SetOperation) -> Need:
    left = needs(node.left)
    if node.operator == "unless":
        return left
    if node.operator == "and":
        return _every((left, _seen(needs(node.right), *_through(node.matching))))
    parts = [part for part in (left, needs(node.right)) if part is not NOTHING]
    return Some(tuple(parts)) if len(parts) > 1 else _every(parts)


def _call(node: Call) -> Need:
    if node.name in NEED_NONE:
        return NOTHING
    parts = [needs(argument) for argument in node.arguments]
    if node.name in NEED_TWO:
        parts = [
            Sample(one.matchers, one.when, one.reach, 2) if isinstance(one, Sample) else one for one in parts
        ]
    need = _every(parts)
    if node.name == "scalar":
        return _seen(need, frozenset(), kept=True)
    if node.name in WRITE_LABEL:
        place = WRITE_LABEL[node.name]
        named = "le" if place is None else _text(node.arguments[place])
        return _seen(need, frozenset({named}), kept=False)
    return need


def _text(node: Node) -> str:
    return node.value if isinstance(node, Text) else ""


def _grouped(need: Need, grouping: Grouping) -> Need:
    return _seen(need, grouping.names, kept=not grouping.without)


Through = tuple[frozenset[str], bool]
"""Which of the alert's labels the series of one side have: `names` and `kept` of `Seen`."""


def _through(matching: Matching) -> Through:
    return frozenset(matching.names), matching.on


def _sides(matching: Matching) -> tuple[Through, Through]:
    """For the left and the right side. What `group_left` brings over is a reason, not what the alert is about: another
    reason for the same thing is data as well."""
    met = _through(matching)
    if matching.cardinality == "one-to-one":
        return met, met
    brought = frozenset(matching.include)
    many = brought, False
    one = met if matching.on else (met[0] | brought, False)
    return (many, one) if matching.cardinality == "many-to-one" else (one, many)


def _every(parts: Iterable[Need]) -> Need:
    found: list[Need] = []
    for part in parts:
        found += part.parts if isinstance(part, Every) else (part,)
    if not found:
        return NOTHING
    return found[0] if len(found) == 1 else Every(tuple(found))


def _seen(need: Need, names: frozenset[str], kept: bool) -> Need:
    return need if need is NOTHING or (not names and not kept) else Seen(need, names, kept)


def _then(need: Need, when: When) -> Need:
    return need if need is NOTHING else Then(need, when)


def about(need: Need, own: Sequence[str]) -> Need:
    """The needs of a rule's expression, seen from its alert: what the rule itself says in these labels is in no series."""
    return _seen(need, frozenset(own), kept=False)
