"""Expressions to ask of two evaluators: each function, operator and aggregation systematically, and random mixtures.

All durations are multiples of five seconds, so that no window ends on a sample (see parity_data).
"""

from __future__ import annotations

import random

GAUGES = (
    "temperature_celsius",
    "vllm:num_requests_running",
    'vllm:kv_cache_usage_perc{model_name="qwen"}',
    "noise",
    "steps",
    "flapping",
    "job:requests:rate5m",
    "constant",
    "tiny",
    "huge",
)
COUNTERS = (
    "vllm:generation_tokens_total",
    'vllm:request_success_total{finished_reason!="abort"}',
    "vllm:num_preemptions_total",
    "energy_joules_total",
    'odd_bucket{kind="falling"}',
)
SELECTORS = (
    "up",
    'up{instance="a"}',
    'up{instance!="a"}',
    'up{instance=~"a|b"}',
    'up{instance!~"b.*"}',
    'up{instance=~".+",job="vllm"}',
    'up{missing=""}',
    'up{missing!=""}',
    'up{missing=~".*"}',
    'up{instance=~"A"}',
    'up{instance=~"(?i)A"}',
    'up{instance=~""}',
    'up{instance!~""}',
    '{__name__="up"}',
    '{__name__=~"vllm:num_.*",engine="0"}',
    '{__name__=~"temp.+|noise"}',
    '{job="vllm",__name__!~"vllm:.*|odd.*|energy.*|huge|noise"}',
    '{gpu="1"}',
    '{gpu=~"[01]",__name__=~"s.*"}',
    '{model_name=~"meta-llama/.*",le="+Inf"}',
    "missing",
    'missing{a="b"}',
    "engine_info",
    "since_seconds",
    'vllm:time_to_first_token_seconds_bucket{le="0.1"}',
    'vllm:time_to_first_token_seconds_bucket{le=~"0.1|1.0"}',
    *GAUGES,
    *COUNTERS,
)
RANGES = ("10s", "35s", "1m", "5m", "20m", "1h")
RANGE_FUNCTIONS = (
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "changes",
    "resets",
    "delta",
    "idelta",
    "deriv",
    "rate",
    "increase",
    "irate",
    "absent_over_time",
)
CONTINUOUS = ("avg_over_time", "min_over_time", "max_over_time", "sum_over_time", "count_over_time", "delta")
"""Where the last bit of a value that was computed does not decide, as it does for a counter that may have been reset."""
ELEMENTWISE = [
    "abs",
    "ceil",
    "floor",
    "sqrt",
    "exp",
    "ln",
    "log2",
    "log10",
    "sgn",
    "round",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "deg",
    "rad",
]
DATES = ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"]
AGGREGATIONS = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]
ARITHMETIC = ["+", "-", "*", "/", "%", "^", "atan2"]
COMPARISONS = ["==", "!=", ">", "<", ">=", "<="]


def systematic() -> dict[str, list[str]]:
    """Everything once, with the arguments that matter, by topic."""
    topics = {
        "selectors": _selectors(),
        "ranges": _ranges(),
        "elementwise": _elementwise(),
        "histograms": _histograms(),
        "labels": _labels(),
        "aggregations": _aggregations(),
        "operators": _operators(),
        "literals": _literals(),
        "subqueries": _subqueries(),
    }
    return {topic: list(dict.fromkeys(found)) for topic, found in topics.items()}


def _selectors() -> list[str]:
    return [
        *SELECTORS,
        *(f"{one} offset {by}" for one in ("temperature_celsius", "up") for by in ("5m", "-5m", "1h5s")),
        *(f"{one} @ {at}" for one in ("noise", "up") for at in ("1763701002.503", "start()", "end()")),
        "up @ 1763701002.503 offset 5m",
        "up offset 5m @ 1763701002.503",
        "rate(energy_joules_total[5m] @ end())",
        "rate(energy_joules_total[5m] @ 1763702002.503 offset 10m)",
        "sum(up @ end()) + sum(up)",
        *(f"timestamp({one})" for one in ("up", "up + 0", "up offset 5m", "(up)", "temperature_celsius > 0")),
        *(f"timestamp({one})" for one in ("timestamp(up)", "up @ 1763701002.503", "last_over_time(up[5m])")),
        *(f"absent({one})" for one in ("up", "missing", "sum(missing)", "up > 5")),
        'absent(missing{a="b",c=~"d",e!="f"})',
        'absent(missing{a="b",a="c"})',
        'absent({__name__="missing",x="y"})',
        'absent_over_time(missing{a="b"}[5m])',
        *(f"scalar({one})" for one in ("up", "constant", "missing", "sum(up)")),
        *(f"vector({one})" for one in ("1", "time()", "scalar(constant)", "pi()")),
        "time()",
        "pi()",
    ]


def _ranges() -> list[str]:
    found = []
    for function in RANGE_FUNCTIONS:
        found += [f"{function}({one}[5m])" for one in (*GAUGES, *COUNTERS)]
        found += [f"{function}(temperature_celsius[{span}])" for span in RANGES]
        found += [f"{function}(vllm:generation_tokens_total[{span}])" for span in RANGES]
        found += [f"{function}(up[20m] offset 5m)", f"{function}(missing[5m])"]
        found += [f"{function}(temperature_celsius[10m:1m])", f"{function}(sum(up)[10m:30s])"]
        found += [f"{function}(rate(energy_joules_total[50s])[15m:1m])"]
    for gauge in ("temperature_celsius", "noise", "huge", "steps", "flapping"):
        quantiles = ("0", "0.5", "0.99", "1", "-1", "2", "NaN")
        found += [f"quantile_over_time({q}, {gauge}[10m])" for q in quantiles]
        found += [f"predict_linear({gauge}[10m], {ahead})" for ahead in ("0", "600", "-60")]
        found += [f"holt_winters({gauge}[10m], 0.3, {trend})" for trend in ("0.1", "0.9")]
    return found


def _elementwise() -> list[str]:
    found = []
    for function in ELEMENTWISE:
        gauges = ("temperature_celsius", "noise", "steps", "up", "tiny", "huge", "vllm:kv_cache_usage_perc")
        found += [f"{function}({one})" for one in (*gauges, "-temperature_celsius / 20")]
    nearest = ("5", "0.1", "-3", "0")
    found += [f"round({one}, {to})" for one in ("noise", "temperature_celsius") for to in nearest]
    bounds = (("-10", "10"), ("10", "-10"), ("NaN", "1"), ("-Inf", "0"))
    found += [f"clamp(noise, {low}, {high})" for low, high in bounds]
    found += [f"{function}(noise, {to})" for function in ("clamp_min", "clamp_max") for to in ("0", "NaN")]
    for function in DATES:
        times = ("", "since_seconds", "vector(1e9)", "-since_seconds")
        found += [f"{function}({one})" for one in times]
    return found


def _histograms() -> list[str]:
    bucket = "vllm:time_to_first_token_seconds_bucket"
    found = []
    for q in ("0", "0.5", "0.95", "0.99", "1", "-0.5", "1.5", "NaN"):
        found += [
            f"histogram_quantile({q}, {bucket})",
            f"histogram_quantile({q}, rate({bucket}[5m]))",
            f"histogram_quantile({q}, sum by (le) (rate({bucket}[5m])))",
            f"histogram_quantile({q}, odd_bucket)",
            f"histogram_quantile({q}, rate(odd_bucket[5m]))",
        ]
    found += [
        f"histogram_quantile(0.9, sum by (le, {by}) (increase({bucket}[10m])))"
        for by in ("engine", "model_name")
    ]
    found += ["histogram_quantile(scalar(constant) / 50, odd_bucket)", "histogram_quantile(0.5, up)"]
    found += [
        f"rate({bucket[:-7]}_sum[5m]) / rate({bucket[:-7]}_count[5m])",
        f'{bucket}{{le="0.1"}} / ignoring(le) {bucket[:-7]}_count',
    ]
    return found


def _labels() -> list[str]:
    return [
        'label_replace(up, "host", "$1", "instance", "(.*)")',
        'label_replace(up, "host", "x-$1-${1}y", "instance", "(.)")',
        'label_replace(up, "host", "$2", "instance", "(a)(b)?")',
        'label_replace(up, "host", "${name}", "instance", "(?P<name>a)")',
        'label_replace(up, "instance", "", "instance", "a")',
        'label_replace(up, "host", "fixed", "missing", "")',
        'label_replace(up, "host", "fixed", "instance", "nothing")',
        'label_replace(temperature_celsius, "__name__", "renamed", "gpu", ".*")',
        'label_replace(up, "instance", "same", "instance", ".*")',
        'label_replace(up, "bad-name", "x", "instance", ".*")',
        'label_replace(up, "host", "x", "instance", "(")',
        'label_join(up, "both", "-", "job", "instance")',
        'label_join(up, "both", "", "job", "missing", "instance")',
        'label_join(up, "job", ",", "instance")',
        'label_join(up, "same", "-")',
        'label_join(up, "instance", "-", "job")',
        'sum by (host) (label_replace(up, "host", "$1", "instance", "(.)"))',
    ]


def _aggregations() -> list[str]:
    found = []
    for operation in AGGREGATIONS:
        found += [f"{operation}({one})" for one in (*GAUGES, "missing", "vllm:request_success_total")]
        found += [f"{operation} by (model_name) (vllm:request_success_total)"]
        found += [f"{operation} without (finished_reason, engine) (vllm:request_success_total)"]
        found += [f"{operation} by (missing, engine) (vllm:num_requests_running)", f"{operation} by () (up)"]
        found += [f"{operation} without () (up)", f"{operation}(rate(energy_joules_total[5m])) by (gpu)"]
        found += [
            f'{operation} by (__name__) ({{__name__=~"vllm:num_.*"}})',
            f"{operation} without (__name__) (up)",
        ]
    for k in ("1", "2", "0", "-1", "100", "1.9", "NaN"):
        found += [f"topk({k}, vllm:request_success_total)", f"bottomk({k}, vllm:request_success_total)"]
    found += [f"{one}(3, noise)" for one in ("topk", "bottomk")]
    found += [f"{one} by (model_name) (1, vllm:request_success_total)" for one in ("topk", "bottomk")]
    found += [
        f"{one} without (finished_reason) (1, vllm:request_success_total)" for one in ("topk", "bottomk")
    ]
    for q in ("0", "0.3", "0.5", "1", "-1", "2", "NaN"):
        found += [f"quantile({q}, vllm:request_success_total)", f"quantile by (gpu) ({q}, noise)"]
    found += [
        'count_values("v", vllm:num_requests_running)',
        'count_values by (gpu) ("v", steps)',
        'count_values("v", noise)',
    ]
    found += [
        'count_values("gpu", steps)',
        'count_values without (gpu) ("value", steps)',
        'count_values("bad-name", up)',
    ]
    found += ['count_values("v", huge)', 'count_values("v", tiny)', 'count_values("v", since_seconds)']
    found += [
        "sum(up) by (instance)",
        "sum(sum by (engine) (vllm:num_requests_running))",
        "topk(scalar(sum(up)), noise)",
    ]
    return found


def _operators() -> list[str]:
    found = []
    for operator in ARITHMETIC:
        found += [
            f"temperature_celsius {operator} 3",
            f"3 {operator} temperature_celsius",
            f"noise {operator} noise",
        ]
        found += [
            f"temperature_celsius {operator} on (gpu) steps",
            f"steps {operator} 0",
            f"0 {operator} steps",
        ]
        found += [f"7 {operator} 3", f"-7 {operator} 3", f"5 {operator} 0", f"scalar(constant) {operator} 5"]
    for operator in COMPARISONS:
        found += [
            f"temperature_celsius {operator} 3",
            f"3 {operator} temperature_celsius",
            f"noise {operator} noise",
        ]
        found += [f"temperature_celsius {operator} bool 3", f"3 {operator} bool temperature_celsius"]
        found += [
            f"temperature_celsius {operator} ignoring (gpu) group_left () constant",
            f"3 {operator} bool 4",
        ]
        found += [
            f"temperature_celsius {operator} bool on (gpu) steps",
            f"temperature_celsius {operator} on (gpu) steps",
        ]
        found += [f"steps {operator} steps offset 5m", f"noise {operator} bool NaN", f"3 {operator} 4"]
    for operator in ("and", "or", "unless"):
        found += [f"temperature_celsius {operator} temperature_celsius > 0", f"up {operator} engine_info"]
        found += [f"temperature_celsius {operator} on (gpu) flapping", f"flapping {operator} on () (up == 1)"]
        found += [
            f"temperature_celsius {operator} ignoring (gpu) constant",
            f"up {operator} missing",
            f"missing {operator} up",
        ]
        found += [f"(noise > 0) {operator} (noise < 50)", f"vector(1) {operator} up", f"1 {operator} up"]
    found += [
        "vllm:num_requests_running / on (engine) group_left (version) (vllm:num_requests_waiting + 1)",
        "vllm:num_requests_running * on (instance) group_left (version) engine_info",
        "engine_info * on (instance) group_right (version) vllm:num_requests_running",
        "vllm:num_requests_running * ignoring (engine, model_name) group_left (missing) constant",
        "vllm:request_success_total / on (model_name) group_left sum by (model_name) (vllm:request_success_total)",
        "vllm:request_success_total / ignoring (finished_reason) group_left sum without (finished_reason) (vllm:request_success_total)",
        "vllm:request_success_total / on (model_name) sum by (model_name) (vllm:request_success_total)",
        "up + on (job) up",
        "up * on (job) group_left up",
        "up == on (job) up",
        "temperature_celsius + steps + on (gpu, instance, job) noise",
        "-temperature_celsius",
        "+temperature_celsius",
        "--up",
        "-(up > 0)",
        "-1 ^ 2",
        "2 ^ 3 ^ 2",
        "1 + 2 * 3 - 4 / 5 % 6",
        "(1 + 2) * 3",
        "up > bool 0 == 1",
        "1 + up * 2 > 1 and up < 5 or vector(9)",
        "up and up or up unless up",
        "constant > 41 < 43",
        "temperature_celsius > -Inf",
        "sum(up) / count(up) > 0.4",
        "time() - timestamp(up)",
        "job:requests:rate5m > 0.5",
        "(vllm:num_requests_running > 5) * 0 + 1",
        '{__name__=~"temperature_celsius|steps"} + 1',
        '{__name__=~"temperature_celsius|steps"} > 1',
        'sum({__name__=~"temperature_celsius|steps"})',
        '-{__name__=~"temperature_celsius|steps"}',
        'rate({__name__=~"energy_joules_total|noise"}[5m])',
        'abs({__name__=~"temperature_celsius|steps"})',
        'last_over_time({__name__=~"temperature_celsius|steps"}[5m])',
        "1 < bool 2 < bool 3",
    ]
    return found


def _literals() -> list[str]:
    return [
        *("1", "1.5e3", "-0", "0x1F", "Inf", "-inf", "NaN", "nan", ".5", "5.", "1e-3", "+Inf", '"text"', "'it''s'"),
        *('"a\\nb"', "`raw\\n`", "1_000", "1e", "0xZ", "007", "up{}", "{}", '{x=""}', '{x=~".*"}', '{x!="y"}', "up{", "up}"),
        *("sum", "sum()", "sum(1)", "rate(up)", "rate(1)", "up[5m]", "up[5]", "up[5m:]", "(up)[5m]", "sum(up)[5m]", "abs(up[5m])"),
        *("abs()", "abs(up, up)", "nosuch(up)", "up offset", "up offset 5", "up @", "up @ x", "1 offset 5m", "up offset 5m offset 5m"),
        *("1 and 1", "1 == 1", '"a" + 1', '"a" == "a"', "up bool 1", "up + bool up", "up and on", "up and bool up"),
        *("up + on (x) group_left (x) up", "up and on (x) group_left up", "1 + on (x) up", "sum by (up", "topk(up)", "topk(up, up)"),
        *("topk(1)", "quantile(up, up)", 'count_values(1, up)', 'count_values(up)', "scalar(1)", "vector(up)", "time(1)", "pi(1)"),
        *("sum by (le,) (up)", "sum by (,) (up)", "sum(up) by (instance) by (job)", "sum without (a) by (b) (up)", "up{a=b}", 'up{a="b" c="d"}'),
        *('up{a="b",}', 'up{,a="b"}', 'up{__name__="x"}', 'up{a=~"("}', 'up{a=~"*"}', "# only a comment", "up # a comment", "up\n+\nup", "", " "),
        *("up[1h30m]", "up[90s]", "up[1m30s:15s]", "up[0s]", "up[-5m]", "up[1.5m]", "up[5m5m]", "up[1s1m]", "up[5x]", "rate(up[5m)", "((up))"),
        *("holt_winters(up[5m], 2, 0.5)", "holt_winters(up[5m], 0.5, 0)", "holt_winters(up[5m], 0.5)", "histogram_quantile(up, up)"),
        *("label_replace(up)", 'label_replace(up, "a", "b", "c")', 'label_replace(up, 1, "b", "c", "d")', 'label_join(up, "a")', "round(up, up)"),
        *("minute(1)", "timestamp(1)", "absent(1)", "absent_over_time(up)", "sort(1)", "predict_linear(up[5m])", "clamp(up)", "clamp(up, 1)"),
        *("up.x", "a:b:c", ":x", "5up", "up-1", "on", "by", "bool", "offset", "and", "inf{}", "nan{}", "start", "end", "up @ start", "SUM(up)"),
        *("Sum BY (instance) (up)", "up AND up", "up Or up", "up OFFSET 5m", "up and\tup", "up, up", "up;", "up = up", "up =~ up", "!up", "up ! up"),
    ]  # fmt: skip


def _subqueries() -> list[str]:
    return [
        "temperature_celsius[2m:20s]",
        "(temperature_celsius > 0)[5m:30s]",
        "sum(up)[10m:1m]",
        "sum(up)[10m:1m] offset 5m",
        "sum(up)[10m:1m] @ 1763702002.503",
        "up[10m:]",
        "max_over_time(sum(up)[10m:])",
        "max_over_time(rate(energy_joules_total[50s])[10m:30s] offset 5m)",
        "max_over_time(rate(energy_joules_total[50s])[10m:30s] @ end())",
        "max_over_time(rate(energy_joules_total[50s] @ start())[10m:30s])",
        "min_over_time(avg_over_time(sum(temperature_celsius)[95s:10s])[10m:1m])",
        "rate(sum(vllm:generation_tokens_total)[10m:30s])",
        "quantile_over_time(0.9, (noise > 0)[20m:35s])",
        "count_over_time(vector(1)[10m:15s])",
        "avg_over_time(time()[10m:15s])",
        "sum_over_time((up == 0)[30m:1m])",
        "absent_over_time(missing[10m:1m])",
        "absent_over_time((up > 5)[10m:1m])",
        "last_over_time(flapping[5m:10s])",
        "deriv(timestamp(flapping)[5m:10s])",
        "stddev_over_time(topk(1, noise)[5m:20s])",
        "count_over_time(absent(flapping)[30m:5s])",
        "max_over_time(max_over_time(sum(up)[4m55s:20s] offset 1m)[10m:1m] offset 2m)",
        "avg_over_time((up offset 5m)[10m:1m])",
        "sum_over_time(sum(up @ 1763702002.503)[10m:1m])",
        "changes((temperature_celsius > bool 0)[20m:15s])",
    ]


def mixtures(count: int, seed: int) -> list[str]:
    """Random expressions that are mostly valid, some of which fail when they are evaluated.

    They leave out what the versions differ in (see test_parity_expressions), and rankings of what may be equal.
    """
    dice = random.Random(seed)
    return list(dict.fromkeys(_vector(dice, 3) for _ in range(count)))


def _vector(dice: random.Random, depth: int, inside: bool = False) -> str:
    """`inside` a subquery there is no other: its steps and the window of the outer one would meet."""
    if depth == 0 or dice.random() < 0.1:
        return _selector(dice)

    def inner() -> str:
        return _vector(dice, depth - 1, inside)

    kind = dice.randrange(12)
    if kind < 2:
        labels = ["model_name", "engine", "gpu", "instance", "finished_reason", "le"]
        grouping = f"{dice.choice(('by', 'without'))} ({', '.join(dice.sample(labels, 2))})"
        return f"{dice.choice(AGGREGATIONS[:-2])} {grouping} ({inner()})"
    if kind < 5:
        return _over_a_range(dice, depth - 1, inside)
    if kind == 5:
        return f"{dice.choice(ELEMENTWISE[:10])}({inner()})"
    if kind == 6:
        number = dice.choice(("2", "-0.5", "time()", "0"))
        return f"({inner()}) {dice.choice((*ARITHMETIC[:4], *COMPARISONS))} {number}"
    if kind == 7:
        return f"({inner()}) {dice.choice(('and', 'or', 'unless'))} on (instance) ({inner()})"
    if kind == 8:
        operator = dice.choice((*ARITHMETIC[:4], "== bool"))
        return f"({inner()}) {operator} ignoring (le) ({inner()})"
    if kind == 9:
        parts = [f"{dice.choice(('sum', 'max'))} by (gpu, engine) ({inner()})" for _ in range(2)]
        return dice.choice(ARITHMETIC[:4]).join(parts)
    if kind == 10:
        return f"{dice.choice(('topk', 'bottomk'))}({dice.randint(1, 4)}, vllm:generation_tokens_total)"
    negated = inner()
    return negated if " or " in negated else f"-({negated})"


def _selector(dice: random.Random) -> str:
    gauges = (*GAUGES[:7], *COUNTERS, "up", "vllm:time_to_first_token_seconds_bucket", "flapping")
    return dice.choice(gauges) + dice.choice(("", "", "", " offset 2m5s", " offset -40s"))


def _over_a_range(dice: random.Random, depth: int, inside: bool) -> str:
    if inside or depth == 0 or dice.random() < 0.6:
        chosen = dice.choice((*GAUGES[:7], *COUNTERS, "up", "vllm:time_to_first_token_seconds_bucket"))
        matrix = f"{chosen}[{dice.choice(RANGES[1:5])}]" + dice.choice(
            ("", "", " offset 3m", " offset -1m5s")
        )
        return f"{dice.choice(RANGE_FUNCTIONS[:-1])}({matrix})"
    steps = f"{dice.choice(('4m10s', '8m', '15m'))}:{dice.choice(('20s', '1m', '35s'))}"
    return f"{dice.choice(CONTINUOUS)}(({_vector(dice, depth, True)})[{steps}])"
