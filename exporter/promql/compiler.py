"""From promql-parser's tree to a plan that can be evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import promql_parser as syntax_tree

from exporter.promql.aggregate import REDUCERS, Aggregation, Grouping, Quantile
from exporter.promql.arithmetic import SETS
from exporter.promql.calls import Call
from exporter.promql.certainty import cannot_fail
from exporter.promql.explain import in_place
from exporter.promql.functions import FUNCTIONS
from exporter.promql.lexer import quoted
from exporter.promql.matching import Cardinality, Matching, VectorOperation
from exporter.promql.model import QueryError
from exporter.promql.operators import MixedOperation, Negative, ScalarOperation
from exporter.promql.plan import Kind, Node, Number, Once, Text
from exporter.promql.query import LOOKBACK_MS, Query
from exporter.promql.ranking import CountValues, Rank
from exporter.promql.reads import Reads
from exporter.promql.selectors import RangeSelector, SampleTimes, VectorSelector, When
from exporter.promql.sets import SetOperation
from exporter.promql.subquery import Subquery
from exporter.promql.syntax import Parsed, parse
from exporter.storage.matching import condition_of
from exporter.storage.model import NAME, Matcher

SCALARS = frozenset({"pi", "scalar", "time"})
"""The functions that give a number; the others give a vector."""


def compiled(expression: str, subquery_step: int) -> Query:
    """The query of an expression; QueryError where it is none."""
    builder = _Builder(expression, parse(expression), subquery_step)
    root = builder.node(builder.parsed.tree)
    return Query(expression, once(root), tuple(builder.reads))


def once(node: Node) -> Node:
    """The node, evaluated but once where its value does not depend on the step and costs something."""
    cheap = isinstance(node, (Number, Text, Once)) or node.kind in ("matrix", "string")
    return Once(node) if node.invariant and not cheap else node


class _Builder:
    def __init__(self, expression: str, parsed: Parsed, subquery_step: int) -> None:
        self.expression = expression
        self.parsed = parsed
        self.reads: list[Reads] = []
        self._subquery_step = subquery_step
        self._around: list[tuple[When, int]] = []

    def node(self, tree: Any) -> Node:
        """The plan of a subtree."""
        return _MAKERS[type(tree)](self, tree)

    def _string(self, index: str) -> str:
        return self.parsed.strings[int(index)].value

    def _label(self, name: str) -> str:
        """A label's name in a matcher: names stand for themselves, quoted ones are in the table."""
        return self._string(name) if name.isdigit() else name

    def _milliseconds(self, given: Any) -> int:
        """A time that the parser read as an index in the table."""
        return self.parsed.times[round(given.total_seconds())] if given is not None else 0

    def _when(self, tree: Any) -> When:
        offset = 0
        if tree.offset is not None:
            index = round(tree.offset.total_seconds())
            offset = self.parsed.times[index] if index >= 0 else -self.parsed.times[-index]
        if tree.at is None:
            return When(offset)
        if tree.at.type == syntax_tree.AtModifierType.Start:
            return When(offset, "start")
        if tree.at.type == syntax_tree.AtModifierType.End:
            return When(offset, "end")
        return When(offset, self.parsed.times[round(tree.at.at.timestamp())])

    def _matchers(self, tree: Any) -> tuple[Matcher, ...]:
        found = [Matcher(NAME, "=", tree.name)] if tree.name is not None else []
        for one in tree.matchers.matchers:
            text = self.parsed.strings[int(one.value)]
            operator = cast('Literal["=", "!=", "=~", "!~"]', text.operator or "=")
            matcher = Matcher(self._label(one.name), operator, text.value)
            found.append(checked(matcher, self.expression, text.position))
        if tree.name is None and all(condition_of(matcher).empty for matcher in found):
            position = self.parsed.strings[int(tree.matchers.matchers[0].value)].position
            raise in_place(
                self.expression, position, "vector selector must contain at least one non-empty matcher"
            )
        return tuple(found)

    def _vector_selector(self, tree: Any) -> VectorSelector:
        selector = VectorSelector(self._matchers(tree), self._when(tree))
        self._read(selector.matchers, selector.when, LOOKBACK_MS)
        return selector

    def _range_selector(self, tree: Any) -> RangeSelector:
        inner = tree.vector_selector
        selector = RangeSelector(self._matchers(inner), self._when(inner), self._milliseconds(tree.range))
        self._read(selector.matchers, selector.when, selector.range)
        return selector

    def _read(self, matchers: tuple[Matcher, ...], when: When, reach: int) -> None:
        back, fixed = reach + when.offset, isinstance(when.at, int)
        if when.at is None:
            for outer, span in reversed(self._around):
                back += span + outer.offset
                if outer.at is not None:
                    fixed = isinstance(outer.at, int)
                    break
        self.reads.append(Reads(matchers, max(back, 0), fixed))

    def _subquery(self, tree: Any) -> Subquery:
        when, span = self._when(tree), self._milliseconds(tree.range)
        self._around.append((when, span))
        before = len(self.reads)
        part = once(self.node(tree.expr))
        self._around.pop()
        selectors = tuple(one.matchers for one in self.reads[before:])
        return Subquery(part, when, span, self._milliseconds(tree.step) or self._subquery_step, selectors)

    def _binary(self, tree: Any) -> Node:
        operator = str(tree.op)
        left, right = self.node(tree.lhs), self.node(tree.rhs)
        if not (left.invariant and right.invariant):
            left, right = once(left), once(right)
        as_bool = tree.modifier is not None and bool(tree.modifier.return_bool)
        if left.kind == right.kind == "scalar":
            return ScalarOperation(operator, left, right)
        if "scalar" in (left.kind, right.kind):
            return MixedOperation(operator, left, right, as_bool)
        matching = self._matching(tree.modifier)
        if operator in SETS:
            return SetOperation(operator, left, right, matching, lazy=cannot_fail(right))
        return VectorOperation(operator, left, right, matching, as_bool)

    def _matching(self, modifier: Any) -> Matching:
        if modifier is None:
            return Matching()
        on = False
        names: tuple[str, ...] = ()
        if modifier.matching is not None:
            on = modifier.matching.type == syntax_tree.LabelModifierType.Include
            names = tuple(map(self._string, modifier.matching.labels))
        indices = modifier.group_labels or ()
        include = tuple(map(self._string, indices))
        for index, name in zip(indices, include, strict=True):
            if on and name in names:
                said = f"label {quoted(name)} must not occur in ON and GROUP clause at once"
                raise in_place(self.expression, self.parsed.strings[int(index)].position, said)
        cardinality: Cardinality = "one-to-one"
        if modifier.card == syntax_tree.VectorMatchCardinality.ManyToOne:
            cardinality = "many-to-one"
        elif modifier.card == syntax_tree.VectorMatchCardinality.OneToMany:
            cardinality = "one-to-many"
        return Matching(on, names, cardinality, include)

    def _aggregation(self, tree: Any) -> Node:
        operator = str(tree.op)
        grouping = Grouping()
        if tree.modifier is not None:
            names = frozenset(map(self._string, tree.modifier.labels))
            grouping = Grouping(names, tree.modifier.type == syntax_tree.AggModifierType.Without)
        parameter = self.node(tree.param) if tree.param is not None else None
        part = self.node(tree.expr)
        if parameter is None:
            assert operator in REDUCERS
            return Aggregation(operator, part, grouping)
        if not (parameter.invariant and part.invariant):
            parameter, part = once(parameter), once(part)
        if operator == "count_values":
            label = cast("Text", parameter).value
            if not label:
                raise QueryError("bad_data", 'parse error: invalid label name ""')
            return CountValues(label, part, grouping)
        if operator == "quantile":
            return Quantile(parameter, part, grouping)
        return Rank(operator == "topk", parameter, part, grouping)

    def _call(self, tree: Any) -> Node:
        name = tree.func.name
        arguments = [self.node(argument) for argument in tree.args]
        first = arguments[0] if arguments else None
        matchers = first.matchers if isinstance(first, (VectorSelector, RangeSelector)) else None
        if name == "timestamp" and isinstance(first, VectorSelector):
            arguments = [SampleTimes(first)]
        kind: Kind = "scalar" if name in SCALARS else "vector"
        call = Call(name, FUNCTIONS[name], arguments, kind, matchers)
        if not call.invariant:
            call.arguments = [once(argument) for argument in arguments]
        return call


# Beside the class and not in each builder: a builder that knew its own methods would stay, with the parser's tree,
# until somebody looks for garbage.
_MAKERS: dict[type, Callable[[_Builder, Any], Node]] = {
    syntax_tree.NumberLiteral: lambda _, tree: Number(tree.val),
    syntax_tree.StringLiteral: lambda builder, tree: Text(builder._string(tree.val)),
    syntax_tree.ParenExpr: lambda builder, tree: builder.node(tree.expr),
    syntax_tree.UnaryExpr: lambda builder, tree: Negative(builder.node(tree.expr)),
    syntax_tree.VectorSelector: _Builder._vector_selector,
    syntax_tree.MatrixSelector: _Builder._range_selector,
    syntax_tree.SubqueryExpr: _Builder._subquery,
    syntax_tree.BinaryExpr: _Builder._binary,
    syntax_tree.AggregateExpr: _Builder._aggregation,
    syntax_tree.Call: _Builder._call,
}


def checked(matcher: Matcher, expression: str, position: int) -> Matcher:
    """The matcher; QueryError for what is no regular expression in RE2's syntax."""
    try:
        condition_of(matcher)
    except ValueError as error:
        said = error.__cause__.args[0] if error.__cause__ is not None else str(error)
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        said = said.replace(f"(?s:{matcher.value})", matcher.value)
        raise in_place(expression, position, f"error parsing regexp: {said}") from error
    return matcher
