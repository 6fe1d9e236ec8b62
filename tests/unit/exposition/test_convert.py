from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, Info, Summary
from prometheus_client import Counter as ClientCounter
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from exporter.exposition.layout import PageReader
from exporter.exposition.parse import parse

CAPTURE = (Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt").read_bytes()


def printed(body: str | bytes, *, to: str, source: str = "text", reserved: tuple[str, ...] = ()) -> str:
    reader = PageReader(reserved_prefixes=reserved)
    reader.read(body.encode() if isinstance(body, str) else body, openmetrics=source == "openmetrics")
    page = reader.passthrough().render(openmetrics=to == "openmetrics").decode()
    strict = (
        list(openmetrics_families(page + "# EOF\n")) if to == "openmetrics" else list(text_families(page))
    )
    assert strict is not None
    return page


def series_of(page: str, *, openmetrics: bool = False) -> Counter[tuple[str, object, str, float | None]]:
    body = (page + "# EOF\n" if openmetrics else page).encode()
    samples = parse(body, openmetrics=openmetrics).samples
    return Counter((s.series.name, s.series.labels, repr(s.value), s.timestamp) for s in samples)


def test_the_real_capture_passes_byte_for_byte_but_for_the_created_gauges() -> None:
    kept, dropping = [], False
    for line in CAPTURE.decode().splitlines():
        if line.startswith("# HELP"):
            dropping = line.split()[2].endswith("_created")
        if not dropping:
            kept.append(line)
    assert printed(CAPTURE, to="text") == "\n".join(kept) + "\n"


def test_the_real_capture_becomes_strict_openmetrics_with_the_same_series() -> None:
    page = printed(CAPTURE, to="openmetrics")
    assert "_created" not in page
    assert "# TYPE vllm:request_success counter\n" in page
    assert "# TYPE vllm:iteration_tokens_total histogram\n" in page
    assert "# TYPE vllm:cache_config_info gauge\n" in page
    assert series_of(page, openmetrics=True) == series_of(printed(CAPTURE, to="text"))


def test_types_are_renamed_for_openmetrics() -> None:
    page = (
        '# HELP a_total A "quoted" \\\\ help.\n# TYPE a_total counter\na_total 1\n'
        "# TYPE b counter\nb 2\n# TYPE c untyped\nc 3\nloose 4\n# HELP only_help H\nonly_help 5\n"
    )
    assert printed(page, to="openmetrics") == (
        '# HELP a A \\"quoted\\" \\\\ help.\n# TYPE a counter\na_total 1\n'
        "# TYPE b unknown\nb 2\n# TYPE c unknown\nc 3\n# TYPE loose unknown\nloose 4\n"
        "# HELP only_help H\n# TYPE only_help unknown\nonly_help 5\n"
    )


def test_an_interleaved_family_is_regrouped_for_openmetrics_only() -> None:
    page = '# TYPE a gauge\na{x="1"} 1\n# TYPE b gauge\nb 2\na{x="2"} 3\n'
    assert printed(page, to="text") == page
    assert printed(page, to="openmetrics") == '# TYPE a gauge\na{x="1"} 1\na{x="2"} 3\n# TYPE b gauge\nb 2\n'


def test_a_histogram_is_put_in_order() -> None:
    page = (
        '# TYPE h histogram\nh_sum{m="1"} 1\nh_count{m="1"} 2\nh_bucket{m="1",le="+Inf"} 2\n'
        'h_bucket{m="2",le="inf"} 1\nh_bucket{m="1",le="0.5"} 1\nh_count{m="2"} 1\nh_sum{m="2"} 1\n'
    )
    assert printed(page, to="openmetrics") == (
        '# TYPE h histogram\nh_bucket{m="1",le="0.5"} 1\nh_bucket{m="1",le="+Inf"} 2\nh_count{m="1"} 2\nh_sum{m="1"} 1\n'
        'h_bucket{le="+Inf",m="2"} 1\nh_count{m="2"} 1\nh_sum{m="2"} 1\n'
    )


@pytest.mark.parametrize(
    "lines",
    [
        'h_bucket{le="1"} 1\nh_count 1\nh_sum 1\n',
        'h_bucket{le="+Inf"} 1\nh_sum 1\n',
        'h_bucket{le="+Inf"} 1\nh_count 1\n',
        'h_bucket{le="1"} 1\nh_bucket{le="1.0"} 1\nh_bucket{le="+Inf"} 1\n',
        'h_bucket{le="x"} 1\n',
        "h_bucket 1\n",
        'h_bucket{le="-1"} 0\nh_bucket{le="+Inf"} 1\nh_count 1\nh_sum 1\n',
        "h_count 1\nh_sum 1\n",
        'h 1\nh_bucket{le="+Inf"} 1\n',
    ],
)
def test_an_incomplete_histogram_is_shown_as_unknown_series(lines: str) -> None:
    page = printed("# TYPE h histogram\n" + lines, to="openmetrics")
    assert "histogram" not in page
    assert series_of(page, openmetrics=True) == series_of(lines)


def test_a_gauge_beside_a_counter_of_the_same_base_name_keeps_both() -> None:
    page = "# TYPE a_total counter\na_total 1\n# TYPE a gauge\na 2\n"
    assert printed(page, to="openmetrics") == "# TYPE a_total unknown\na_total 1\n# TYPE a gauge\na 2\n"


def test_created_gauges_go_only_beside_their_counter_histogram_or_summary() -> None:
    page = (
        "# TYPE a_total counter\na_total 1\n# HELP a_created A.\n# TYPE a_created gauge\na_created 5\n"
        "# TYPE b gauge\nb 1\n# TYPE b_created gauge\nb_created 6\n"
        "# TYPE s summary\ns_count 1\ns_sum 2\n# TYPE s_created gauge\ns_created 7\n"
        "# TYPE c counter\nc 1\n# TYPE c_created counter\nc_created 8\n"
    )
    kept = (
        "# TYPE a_total counter\na_total 1\n# TYPE b gauge\nb 1\n# TYPE b_created gauge\nb_created 6\n"
        "# TYPE s summary\ns_count 1\ns_sum 2\n# TYPE c counter\nc 1\n# TYPE c_created counter\nc_created 8\n"
    )
    assert printed(page, to="text") == kept
    assert series_of(printed(page, to="openmetrics"), openmetrics=True) == series_of(kept)


def test_our_own_prefixes_are_kept_out_and_counted() -> None:
    page = (
        '# HELP vllm_slo_x X\n# TYPE vllm_slo_x gauge\nvllm_slo_x{a="1"} 1\nvllm_slo_x{a="2"} 1\n'
        "vllm_slo_loose 1\nvllm:x 2\n# TYPE vllm_slo_unused gauge\n"
    )
    reader = PageReader(reserved_prefixes=("vllm_slo_", "vllm_exporter_"))
    reader.read(page.encode())
    assert reader.reserved == 3
    assert reader.passthrough().render(openmetrics=False) == b"vllm:x 2\n"
    assert reader.passthrough().render(openmetrics=True) == b"# TYPE vllm:x unknown\nvllm:x 2\n"


def test_a_page_of_which_nothing_is_left_prints_nothing() -> None:
    for body in ("", "\n", "vllm_slo_x 1\n"):
        assert printed(body, to="openmetrics", reserved=("vllm_slo_",)) == ""
    assert printed("vllm_slo_x 1\n", to="text", reserved=("vllm_slo_",)) == ""


def test_a_page_without_a_last_newline_gets_one() -> None:
    assert printed("a 1", to="text") == "a 1\n"


def test_crlf_becomes_lf() -> None:
    assert printed("# HELP a b\r\na 1\r\n", to="text") == "# HELP a b\na 1\n"


def test_odd_spellings_become_canonical_in_openmetrics() -> None:
    page = '  a { b = "c" , }   1\n{"u.n",x="y"} 2\nd 3 1500\ne\t4\nf 5  \n'
    assert printed(page, to="openmetrics") == (
        '# TYPE a unknown\na{b="c"} 1\n# TYPE "u.n" unknown\n{"u.n",x="y"} 2\n'
        "# TYPE d unknown\nd 3 1.500\n# TYPE e unknown\ne 4\n# TYPE f unknown\nf 5\n"
    )


OPENMETRICS = (
    '# HELP jobs Jobs \\"done\\".\n# TYPE jobs counter\n# UNIT jobs jobs\n'
    'jobs_total{a="1"} 3 1500.25 # {trace="x"} 1 1600\njobs_created{a="1"} 9\n'
    "# TYPE h_seconds histogram\n# UNIT h_seconds seconds\n"
    'h_seconds_bucket{le="1.0"} 1 # {trace="y"} 0.5\nh_seconds_bucket{le="+Inf"} 1\nh_seconds_count 1\nh_seconds_sum 0.5\n'
    '# TYPE build info\nbuild_info{v="1"} 1\n# TYPE state stateset\nstate{state="on"} 1\n'
    '# TYPE u unknown\nu 1\n# TYPE g gaugehistogram\ng_bucket{le="+Inf"} 2\ng_gcount 2\ng_gsum 3\n# EOF\n'
)


def test_an_openmetrics_source_is_stripped_for_text() -> None:
    assert printed(OPENMETRICS, to="text", source="openmetrics") == (
        '# HELP jobs_total Jobs "done".\n# TYPE jobs_total counter\njobs_total{a="1"} 3 1500250\n'
        '# TYPE h_seconds histogram\nh_seconds_bucket{le="1.0"} 1\nh_seconds_bucket{le="+Inf"} 1\n'
        "h_seconds_count 1\nh_seconds_sum 0.5\n"
        '# TYPE build_info gauge\nbuild_info{v="1"} 1\n# TYPE state gauge\nstate{state="on"} 1\n'
        '# TYPE u untyped\nu 1\n# TYPE g_bucket untyped\ng_bucket{le="+Inf"} 2\n'
        "# TYPE g_gcount untyped\ng_gcount 2\n# TYPE g_gsum untyped\ng_gsum 3\n"
    )


def test_an_openmetrics_source_stays_openmetrics_without_the_created_series() -> None:
    wanted = OPENMETRICS.replace('jobs_created{a="1"} 9\n', "").removesuffix("# EOF\n")
    wanted = wanted.replace("# UNIT jobs jobs\n", "")  # not a suffix of the name
    body = OPENMETRICS.replace("# UNIT jobs jobs\n", "")
    assert printed(body, to="openmetrics", source="openmetrics") == wanted


def test_a_unit_that_is_no_suffix_is_left_out() -> None:
    reader = PageReader()
    reader.read(b"# TYPE a gauge\n# UNIT a bytes\na 1\n# EOF\n", openmetrics=True)
    assert reader.passthrough().render(openmetrics=True) == b"# TYPE a gauge\na 1\n"


def test_what_prometheus_client_serves_reads_the_same_from_both_of_its_formats() -> None:
    registry = CollectorRegistry()
    ClientCounter("jobs", "Jobs.", ["a"], registry=registry).labels('x"y\\z\n').inc(
        3, exemplar={"trace": "t"}
    )
    Histogram("wait_seconds", "Wait.", ["m"], registry=registry).labels("{a,b}").observe(
        0.3, exemplar={"t": "u"}
    )
    Summary("size_bytes", "Size.", registry=registry).observe(2)
    Info("build", "Build.", registry=registry).info({"v": "1"})
    text, om = generate_latest(registry), generate_openmetrics(registry)
    one, other = printed(text, to="text"), printed(om, to="text", source="openmetrics")
    assert series_of(one) == series_of(other)
    assert [x for x in one.splitlines() if x[0] == "#"] == [x for x in other.splitlines() if x[0] == "#"]
    assert "_created" not in one
    printed(text, to="openmetrics")
    printed(om, to="openmetrics", source="openmetrics")


BASES = st.sampled_from(["a", "a_total", "a_count", "a_bucket", "b", "b_created", "c_info", "d_seconds"])
KINDS = st.sampled_from(["counter", "gauge", "untyped", "histogram", "summary", None])
LABELS = st.sampled_from(["", 'x="1"', 'x="2",y="}, #"', 'x="\\"\\\\\\n"', 'y="🦙",'])


def family_lines(name: str, kind: str | None, labels: str, value: int) -> list[str]:
    inner = labels.rstrip(",")
    braces, comma = f"{{{labels}}}" if labels else "", f"{inner}," if inner else ""
    if kind == "histogram":
        return [
            f'{name}_bucket{{{comma}le="0.5"}} {value}',
            f'{name}_bucket{{{comma}le="+Inf"}} {value + 1}',
            f"{name}_count{braces} {value + 1}",
            f"{name}_sum{braces} {value}.25",
        ]
    if kind == "summary":
        return [
            f'{name}{{{comma}quantile="0.5"}} 1',
            f"{name}_count{braces} {value}",
            f"{name}_sum{braces} 3",
        ]
    return [f"{name}{braces} {value}"]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(BASES, KINDS, max_size=6),
    st.lists(st.tuples(BASES, LABELS, st.integers(0, 9)), max_size=8, unique_by=lambda row: row[:2]),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_any_text_page_becomes_strict_openmetrics(
    kinds: dict[str, str | None], rows: list[tuple[str, str, int]], rng: object, shuffled: bool
) -> None:
    lines = [f"# TYPE {name} {kind}" for name, kind in kinds.items() if kind]
    for name, labels, value in rows:
        lines += family_lines(name, kinds.get(name), labels, value)
    # Of a duplicate the first counts, and its value may be one that the rest of a histogram contradicts.
    shown = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assume(len(set(shown)) == len(shown))
    if shuffled:
        rng.shuffle(lines)  # type: ignore[attr-defined]
    page = printed("\n".join(lines) + "\n", to="openmetrics")
    assert series_of(page, openmetrics=True) <= series_of("\n".join(lines) + "\n")
