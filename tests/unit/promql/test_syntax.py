"""What compiles, what does not, and where the fault is said to lie."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from plain_store import PlainStore, budget, number, text

from exporter import promql
from exporter.promql import QueryError

GOOD = [
    "foo",
    "foo:bar:sum",
    "and",
    "fill + fill",
    "sum",
    "SUM(x)",
    "Sum By (A) (x)",
    "a ATAN2 b",
    "a AND b OR c Unless d",
    "NAN + inf",
    "sum by (a,) (x)",
    'sum by ("a b", c:d, on) (x)',
    "sum(x) without ()",
    'x{a="b",}',
    "x{}",
    'x{on="1", bool=~"2"}',
    '{"my.metric", "my.label"!=""}',
    '{__name__!=""}',
    '{a!~".*"}',
    '{__name__="a", __name__=~"a|b"}',
    "x # a comment",
    "x[5m # \n : 1m]",
    "x[ 5m ]",
    "x[300]",
    "x[1h30m:]",
    "x[5m:1m] offset -3m @ 5",
    "x @ -1.5 offset 1e3",
    "x @ start() offset - 5m",
    "- - -x",
    "-x ^ -1",
    "a > bool on(x) group_left() b",
    "1 == bool 1",
    "rate((x[5m]))",
    "max_over_time(rate(x[5m])[1h:1m])",
    'label_join(x, "a", "")',
    "holt_winters(x[5m], 0.1, 0.1)",
    "double_exponential_smoothing(x[5m], 0.1, 0.1)",
    "round(x)",
    "day_of_week()",
    'count_values(("a b"), x)',
    "x{a=~`\\d+`}",
]

BAD = [
    # text, column, message
    ("", 1, "no expression found in input"),
    ("# nothing", 10, "no expression found in input"),
    ("1 +", 4, "unexpected end of input"),
    ("sum(", 5, "unclosed left parenthesis"),
    ("x)", 2, "unexpected right parenthesis ')'"),
    ("()", 2, 'unexpected ")"'),
    ("x y", 3, 'unexpected identifier "y"'),
    ("x{}{}", 4, 'unexpected "{"'),
    ("a = b", 3, 'unexpected "="'),
    ("a <> b", 4, 'unexpected ">"'),
    ("a ! b", 3, "unexpected character after '!': \" \""),
    ("x.y", 2, 'unexpected character: "."'),
    ("x; y", 2, 'unexpected character: ";"'),
    ("é", 1, 'unexpected character: "é"'),
    ("on", 1, 'unexpected identifier "on"'),
    ('"abc', 1, "unterminated quoted string"),
    ("`abc", 1, "unterminated raw string"),
    ('"a\\q"', 3, "unknown escape sequence \\q"),
    ("x{a=b}", 5, 'unexpected identifier "b" in label matching, expected string'),
    ("x{a}", 4, 'unexpected "}" in label matching, expected label matching operator'),
    ("x{,}", 3, 'unexpected "," in label matching, expected identifier or "}"'),
    ('x{a="b" c="d"}', 9, 'unexpected identifier "c" in label matching, expected "," or "}"'),
    ('x{a="b" or c="d"}', 9, 'unexpected identifier "or" in label matching, expected "," or "}"'),
    ('x{a="b"', 8, "unexpected end of input inside braces"),
    ('x{a=~"("}', 6, "error parsing regexp: missing ): ("),
    ('x{__name__="y"}', 1, 'metric name must not be set twice: "x" or "y"'),
    ("{}", 1, "vector selector must contain at least one non-empty matcher"),
    ('{a=""}', 4, "vector selector must contain at least one non-empty matcher"),
    ('{a=~".*", b!="c"}', 5, "vector selector must contain at least one non-empty matcher"),
    ("x[5m", 5, "unclosed left bracket"),
    ("x[]", 3, 'unexpected "]" in range, expected number or duration'),
    ("x[0]", 3, "duration must be greater than 0"),
    ("x[5m:0s]", 6, "duration must be greater than 0"),
    ("x[1h1d]", 3, 'not a valid duration string: "1h1d"'),
    ("x[300y]", 3, "duration out of range"),
    ("1.5h", 1, 'bad number or duration syntax: "1.5h"'),
    ("1e400", 1, 'error parsing number: "1e400" is out of range'),
    ("1__0", 1, 'bad number or duration syntax: "1__0"'),
    ("x offset", 9, "unexpected end of input in offset, expected number or duration"),
    ("x @ foo", 5, 'unexpected identifier "foo" in @, expected timestamp'),
    ("x @ inf", 5, "inf is no time"),
    ("x @ 9e99", 5, "timestamp out of bounds for @ modifier: 9e+99"),
    ("x offset 5m offset 5m", 1, "offset may not be set multiple times"),
    ("x[5m][5m]", 1, "ranges only allowed for vector selectors"),
    ("1 + sum(x)[5m]", 1, "ranges only allowed for vector selectors"),
    ("sum by (1) (x)", 9, 'unexpected number "1" in grouping opts, expected label'),
    ("sum by (a)", 11, 'unexpected end of input in aggregation, expected "("'),
    ("a + group_left b", 5, 'unexpected identifier "group_left"'),
    ("a + on(x) group_left(x) b", 22, 'label "x" must not occur in ON and GROUP clause at once'),
    ("a and on(x) group_left b", 1, 'no grouping allowed for "and" operation'),
    ("a + bool b", 1, "bool modifier can only be used on comparison operators"),
    ("1 == 1", 1, "comparisons between scalars must use BOOL modifier"),
    ("a and 1", 1, 'set operator "and" not allowed in binary scalar expression'),
    ("1 + on(a) 2", 1, "vector matching only allowed between instant vectors"),
    ('"a" + 1', 1, "binary expression must contain only scalar and instant vector types"),
    (
        '+"a"',
        1,
        'unary expression only allowed on expressions of type scalar or instant vector, got "string"',
    ),
    ("a + foo(x)", 5, 'unknown function with name "foo"'),
    (
        '"foo(" == bool 1 # foo(x)\n + (foo (x))',
        5,
        'unknown function with name "foo"',
    ),
    (
        "1 + rate(x) > 2",
        5,
        'expected type range vector in call to function "rate", got instant vector',
    ),
    (
        "sum(rate(a[5m])) / sum by (b) (abs(b[5m]))",
        32,
        'expected type instant vector in call to function "abs", got range vector',
    ),
    ("1 + holt_winters(x[5m])", 5, 'expected 3 argument(s) in call to "holt_winters", got 1'),
    ("rate(x[5m],)", 11, "trailing commas not allowed in function call args"),
    ("vector(sum without (a) (1))", 8, "expected type instant vector in aggregation expression, got scalar"),
    (
        "topk(x)",
        1,
        "wrong number of arguments for aggregate expression provided, expected 2, got 1",
    ),
]

MISSING = [
    ("1 + histogram_count(x)", 5, "histogram_count"),
    ("info(x)", 1, "info"),
    ('sort_by_label(x, "a")', 1, "sort_by_label"),
    ("sum(limitk(1, x))", 5, "limitk()"),
    ("a + fill(0) b", 5, "fill()"),
    ("rate(x[5m] smoothed)", 12, "smoothed"),
    ("x[5m + 1m]", 6, "arithmetic on durations"),
    ("x offset (5m)", 10, "arithmetic on durations"),
    ("x offset step()", 10, "arithmetic on durations"),
]


@pytest.mark.parametrize("expression", GOOD)
def test_what_prometheus_takes_compiles(expression: str):
    promql.compile(expression)


@pytest.mark.parametrize(("expression", "column", "message"), BAD)
def test_a_mistake_is_told_with_its_place(expression: str, column: int, message: str):
    with pytest.raises(QueryError) as refused:
        promql.compile(expression)
    line = expression.count("\n") + 1
    assert str(refused.value) == f"{line}:{column}: parse error: {message}"
    assert refused.value.kind == "bad_data"
    assert refused.value.position == expression.rfind("\n") + column


@pytest.mark.parametrize(("expression", "column", "name"), MISSING)
def test_what_we_do_not_have_is_refused_by_name_and_place(expression: str, column: int, name: str):
    with pytest.raises(QueryError) as refused:
        promql.compile(expression)
    assert refused.value.position == column - 1
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("1_000.5", 1000.5),
        ("0x1F", 31),
        ("0x_f_f", 255),
        ("017", 15),
        ("089", 89),
        (".5e-1", 0.05),
        ("2.", 2),
        ("99999999999999999999", 1e20),
        ("1h30m", 5400),
        ("1y2w3d4h5m6s7ms", 31_536_000 + 1_209_600 + 259_200 + 14_400 + 300 + 6.007),
    ],
)
def test_numbers_are_read_as_go_reads_them(literal: str, value: float):
    assert number(promql.compile(literal).instant(PlainStore(), 0, budget())) == pytest.approx(
        value, rel=1e-15
    )


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"a\n\t\"\\"', 'a\n\t"\\'),
        (r"'it\'s'", "it's"),
        (r"`a\n`", "a\\n"),
        (r'"\x41\102\u00e9\U0001F600"', "ABé😀"),
        (r'"\xff"', "\ufffd"),
        ('"# no comment"', "# no comment"),
    ],
)
def test_strings_are_read_as_go_reads_them(literal: str, value: str):
    assert text(promql.compile(literal).instant(PlainStore(), 0, budget())) == value


@pytest.mark.parametrize(
    "expression",
    [
        "1" + "+1" * 100_00,
        "1" + "^1" * 100_000,
        "(" * 5000 + "x" + ")" * 5000,
        "-" * 20_000 + "x",
        "abs(" * 300 + "x" + ")" * 300,
        "rate(" * 150 + "x" + "[5m:])" * 150,
        "x" + " or x" * 250,
        "f(" + "a," * 20_000 + "a)",
        "x" * 200_000,
    ],
    ids=lambda text: f"{text[:6]}..{len(text)}",
)
def test_what_could_break_the_parser_is_refused(expression: str):
    with pytest.raises(QueryError, match=r"too deeply|at most"):
        promql.compile(expression)


CHILD = """
import sys, threading
from exporter import promql
from exporter.promql import Budget, QueryError
from plain_store import PlainStore

def depth(make):
    deepest = 0
    for levels in range(1, 400):
        try:
            query = promql.compile(make(levels))
        except QueryError as error:
            assert "too deeply" in str(error), error
            break
        deepest = levels
    assert deepest < 399
    promql.compile(make(deepest)).instant(PlainStore('x{a="1"} 0+1x10'), 300_000, Budget(samples=10**9, timeout=60))
    return deepest

def run():
    print(
        depth(lambda n: "x" + " + on(a) group_left(b) x" * n),
        depth(lambda n: "2" + "^2" * n),
        depth(lambda n: "(" * n + "x" + ")" * n),
        depth(lambda n: "-" * n + "x"),
        depth(lambda n: "sum by (a) (" * n + "x" + ")" * n),
        depth(lambda n: "clamp(" * n + "x" + ", 1, 2)" * n),
        depth(lambda n: "max_over_time(" * n + "x" + "[1m:])" * n),
    )

threading.stack_size(1 << 20)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_the_deepest_expressions_that_are_taken_fit_in_a_small_stack(request: pytest.FixtureRequest):
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={"PYTHONPATH": str(request.path.parent) + ":" + str(request.config.rootpath)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(90 <= int(depth) < 200 for depth in done.stdout.split()), done.stdout + done.stderr


def test_a_panic_of_the_parser_is_a_refusal_and_nothing_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(_text: str) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr("exporter.promql.syntax.promql_parser.parse", panic)
    with pytest.raises(QueryError, match="the parser failed") as refused:
        promql.compile("up")
    assert refused.value.kind == "bad_data"


def test_nothing_of_the_parser_s_tree_stays_once_an_expression_is_compiled():
    expression = 'sum by (a) (rate(x{b="c"}[5m])) / on (a) group_left y > 1'
    promql.compile(expression)
    gc.collect()
    gc.disable()
    try:
        kept = promql.compile(expression)
        assert gc.collect() == 0, kept
    finally:
        gc.enable()
