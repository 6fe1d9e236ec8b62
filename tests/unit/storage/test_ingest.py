from __future__ import annotations

from exporter.exposition.block import Block
from exporter.exposition.layout import Layout, Row
from exporter.exposition.model import Family, Series
from exporter.storage.head import Head
from exporter.storage.ingest import Ingest
from exporter.storage.model import Matcher
from exporter.storage.retention import Retention

UP = Family("vllm_exporter_engine_up", "gauge", "Up.")
SECONDS = Family("vllm_slo_seconds", "histogram", "Time.", ("model_name",))


def stored(head: Head, name: str, t_ms: int) -> dict[tuple[tuple[str, str], ...], float]:
    """The present samples of a metric, by its labels without name, job and instance."""
    import numpy as np

    selection = head.select([Matcher("__name__", "=", name)])
    latest = selection.latest(np.array([t_ms]), 300_000)
    return {
        tuple(pair for pair in labels if pair[0] not in ("__name__", "job", "instance")): float(value)
        for labels, value, present in zip(
            selection.labels, latest.values[:, 0], latest.present[:, 0], strict=True
        )
        if present
    }


def fresh() -> tuple[Head, Ingest]:
    head = Head(retention=Retention(3_600_000), memory_limit=1 << 24)
    return head, Ingest(head, job="vllm-exporter", instance="box:9108", reserved=("vllm_slo_",))


def page(*series: Series, values: list[float]) -> Row:
    return Row(Layout(series), values, range(len(values)))


def test_series_get_job_and_instance_as_a_prometheus_would_set_them():
    head, ingest = fresh()
    ingest.page(page(Series("vllm:x", (("model_name", "千问"),), "vllm:x", "gauge"), values=[3.0]), 1000)
    (labels,) = head.select([Matcher("__name__", "=", "vllm:x")]).labels
    assert labels == (
        ("__name__", "vllm:x"), ("instance", "box:9108"), ("job", "vllm-exporter"), ("model_name", "千问"),
    )  # fmt: skip


def test_a_label_of_the_source_that_clashes_moves_aside():
    head, ingest = fresh()
    ingest.page(page(Series("x", (("job", "theirs"),), "x", "gauge"), values=[1.0]), 1000)
    assert stored(head, "x", 1000) == {(("exported_job", "theirs"),): 1.0}


def test_bounds_are_written_as_prometheus_3_does_and_what_becomes_equal_counts_once():
    head, ingest = fresh()
    series = [
        Series("h_bucket", (("le", bound),), "h", "histogram") for bound in ("1", "1.0", "+Inf", "5e-1")
    ]
    ingest.page(page(*series, values=[1.0, 2.0, 3.0, 0.0]), 1000)
    assert stored(head, "h_bucket", 1000) == {
        (("le", "1.0"),): 1.0, (("le", "+Inf"),): 3.0, (("le", "0.5"),): 0.0,
    }  # fmt: skip


def test_our_own_names_and_the_times_at_which_counters_began_are_left_out_of_the_engines_page():
    head, ingest = fresh()
    series = (
        Series("vllm_slo_x", (), "vllm_slo_x", "gauge"),
        Series("vllm:n_total", (), "vllm:n_total", "counter"),
        Series("vllm:n_created", (), "vllm:n_created", "gauge"),
        Series("vllm:file_created", (), "vllm:file_created", "gauge"),
    )
    ingest.page(page(*series, values=[1.0, 2.0, 3.0, 4.0]), 1000)
    assert stored(head, "vllm_slo_x", 1000) == {}
    assert stored(head, "vllm:n_total", 1000) == {(): 2.0}
    assert stored(head, "vllm:n_created", 1000) == {}
    assert stored(head, "vllm:file_created", 1000) == {(): 4.0}


def test_an_engine_cannot_speak_for_what_the_daemon_says_of_it():
    head, ingest = fresh()
    names = ("up", "ALERTS", "ALERTS_FOR_STATE", "scrape_samples_scraped", "uptime")
    ingest.page(page(*[Series(name, (), name, "gauge") for name in names], values=[0.0] * 5), 1000)
    ingest.blocks([Block()], 1000)
    assert [stored(head, name, 1000) for name in names] == [{(): 1.0}, {}, {}, {(): 1.0}, {(): 0.0}]


def test_what_a_rule_records_is_not_taken_from_the_engines_page():
    head, ingest = fresh()
    row = page(Series("instance:up:bool", (), "instance:up:bool", "gauge"), values=[0.0])
    ingest.page(row, 1000)
    assert stored(head, "instance:up:bool", 1000) == {(): 0.0}
    ingest.reserve(["instance:up:bool"])
    ingest.page(row, 2000)
    assert stored(head, "instance:up:bool", 2000) == {}


def test_a_missing_page_ends_the_engines_series_and_nothing_else():
    head, ingest = fresh()
    block = Block()
    block.gauge(UP).set(1.0)
    ingest.page(page(Series("x", (), "x", "gauge"), values=[1.0]), 1000)
    ingest.blocks([block], 1000)
    ingest.page(None, 2000)
    ingest.blocks([block], 2000)
    assert stored(head, "x", 2000) == {}
    assert stored(head, "vllm_exporter_engine_up", 2000) == {(): 1.0}


def test_a_slot_that_is_absent_is_no_sample_and_a_nan_is_one():
    head, ingest = fresh()
    block = Block()
    up, other = block.gauge(UP), block.histogram(SECONDS, (1.0,), "m")
    up.set(float("nan"))
    ingest.blocks([block], 1000)
    (value,) = stored(head, "vllm_exporter_engine_up", 1000).values()
    assert value != value
    assert stored(head, "vllm_slo_seconds_count", 1000) == {}
    other.observe(0.5)
    ingest.blocks([block], 2000)
    assert stored(head, "vllm_slo_seconds_bucket", 2000) == {
        (("le", "1.0"), ("model_name", "m")): 1.0, (("le", "+Inf"), ("model_name", "m")): 1.0,
    }  # fmt: skip
    up.set(None)
    ingest.blocks([block], 3000)
    assert stored(head, "vllm_exporter_engine_up", 3000) == {}


def test_up_and_the_number_of_samples_are_there_as_after_a_scrape_of_the_daemon():
    head, ingest = fresh()
    block = Block()
    block.gauge(UP).set(1.0)
    ingest.page(page(Series("x", (), "x", "gauge"), values=[1.0]), 1000)
    ingest.blocks([block], 1000)
    assert stored(head, "up", 1000) == {(): 1.0}
    assert stored(head, "scrape_samples_scraped", 1000) == {(): 2.0}
    ingest.page(None, 2000)
    ingest.blocks([block], 2000)
    assert stored(head, "scrape_samples_scraped", 2000) == {(): 1.0}


def test_counters_are_known_as_such_so_that_a_reset_is_no_fall():
    import numpy as np

    head, ingest = fresh()
    row = page(
        Series("n_total", (), "n_total", "counter"), Series("s_sum", (), "s", "summary"), values=[9.0, 9.0]
    )
    for second, value in enumerate((5.0, 9.0, 1.0, 4.0)):
        ingest.page(Row(row.layout, [value, value], (0, 1)), 1000 * second)
    for name in ("n_total", "s_sum"):
        edges = head.select([Matcher("__name__", "=", name)]).edges(np.array([-1]), np.array([9000]))
        assert edges.rise.tolist() == [[8.0]]


def several() -> tuple[Head, Ingest]:
    head = Head(retention=Retention(3_600_000), memory_limit=1 << 24)
    return head, Ingest(head, job="job", instance="box:9108", engines=("a", "b"))


def instances(head: Head, name: str) -> dict[str, float]:
    import numpy as np

    selection = head.select([Matcher("__name__", "=", name)])
    latest = selection.latest(np.array([10_000]), 300_000)
    return {
        dict(labels)["instance"]: float(value)
        for labels, value, present in zip(
            selection.labels, latest.values[:, 0], latest.present[:, 0], strict=True
        )
        if present
    }


def test_of_several_engines_each_page_has_its_engines_name_as_instance():
    head, ingest = several()
    for name, value in (("a", 1.0), ("b", 2.0)):
        ingest.page(page(Series("vllm:x", (), "vllm:x", "gauge"), values=[value]), 1000, name)
    assert instances(head, "vllm:x") == {"a": 1.0, "b": 2.0}
    ingest.page(None, 2000, "a")
    assert instances(head, "vllm:x") == {"b": 2.0}


def test_a_label_of_an_engines_page_that_clashes_with_its_name_moves_aside():
    head, ingest = several()
    ingest.page(page(Series("x", (("instance", "theirs"),), "x", "gauge"), values=[1.0]), 1000, "a")
    (labels,) = head.select([Matcher("__name__", "=", "x")]).labels
    assert labels == (("__name__", "x"), ("exported_instance", "theirs"), ("instance", "a"), ("job", "job"))


def test_an_instance_among_our_own_series_is_honoured_and_the_rest_is_the_daemons():
    head, ingest = several()
    of_a, of_b, own = Block((("instance", "a"),)), Block((("instance", "b"),)), Block()
    of_a.gauge(UP).set(1.0)
    of_b.gauge(UP).set(0.0)
    own.gauge(Family("vllm_exporter_own", "gauge", "Own.")).set(5.0)
    for name in ("a", "b"):
        ingest.page(page(Series("vllm:x", (), "vllm:x", "gauge"), values=[1.0]), 1000, name)
    ingest.blocks((of_a, of_b, own), 1000)
    assert instances(head, "vllm_exporter_engine_up") == {"a": 1.0, "b": 0.0}
    assert instances(head, "vllm_exporter_own") == {"box:9108": 5.0}
    assert instances(head, "up") == {"box:9108": 1.0}  # the target of a scrape is the daemon
    assert instances(head, "scrape_samples_scraped") == {"box:9108": 2 + 3}


def test_the_time_at_which_a_histogram_named_like_a_counter_began_is_left_out():
    head, ingest = fresh()
    series = (
        Series("vllm:tokens_total_bucket", (("le", "+Inf"),), "vllm:tokens_total", "histogram"),
        Series("vllm:tokens_total_created", (), "vllm:tokens_total_created", "gauge"),
    )
    ingest.page(page(*series, values=[1.0, 2.0]), 1000)
    assert stored(head, "vllm:tokens_total_created", 1000) == {}
