"""PromQL's functions: those of Prometheus 3 over floats, and why the others are refused."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.promql.functions import buckets, ordering, overtime, rates, relabel, simple, trends
from exporter.promql.functions.dates import DATES
from exporter.promql.functions.elementwise import ELEMENTWISE, clamp, clamp_max, clamp_min, rounded
from exporter.promql.model import Function

FUNCTIONS: Mapping[str, Function] = {
    **ELEMENTWISE,
    **DATES,
    "absent": simple.absent,
    "absent_over_time": simple.absent_over_time,
    "avg_over_time": overtime.avg_over_time,
    "changes": overtime.changes,
    "clamp": clamp,
    "clamp_max": clamp_max,
    "clamp_min": clamp_min,
    "count_over_time": overtime.count_over_time,
    "delta": rates.delta,
    "deriv": trends.deriv,
    "double_exponential_smoothing": trends.double_exponential_smoothing,
    "histogram_fraction": buckets.histogram_fraction,
    "histogram_quantile": buckets.histogram_quantile,
    "holt_winters": trends.double_exponential_smoothing,  # its name in Prometheus 2
    "idelta": overtime.idelta,
    "increase": rates.increase,
    "irate": overtime.irate,
    "label_join": relabel.label_join,
    "label_replace": relabel.label_replace,
    "last_over_time": overtime.last_over_time,
    "max_over_time": overtime.max_over_time,
    "min_over_time": overtime.min_over_time,
    "pi": simple.pi,
    "predict_linear": trends.predict_linear,
    "present_over_time": overtime.present_over_time,
    "quantile_over_time": overtime.quantile_over_time,
    "rate": rates.rate,
    "resets": overtime.resets,
    "round": rounded,
    "scalar": simple.to_scalar,
    "sort": ordering.sort,
    "sort_desc": ordering.sort_desc,
    "stddev_over_time": overtime.stddev_over_time,
    "stdvar_over_time": overtime.stdvar_over_time,
    "sum_over_time": overtime.sum_over_time,
    "time": simple.time,
    "timestamp": simple.timestamp,
    "vector": simple.to_vector,
}
"""By name. Of `timestamp(selector)` the argument is a vector of the samples' times in seconds (see `timestamp`)."""

_NATIVE = "native histograms are not supported"
_EXPERIMENTAL = "experimental functions are not supported"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("histogram_avg", "histogram_count", "histogram_stddev", "histogram_stdvar", "histogram_sum"), _NATIVE
    ),
    **dict.fromkeys(
        (
            "end",
            "first_over_time",
            "histogram_quantiles",
            "info",
            "mad_over_time",
            "max_of",
            "min_of",
            "range",
            "sort_by_label",
            "sort_by_label_desc",
            "start",
            "start_timestamp",
            "step",
            "ts_of_first_over_time",
            "ts_of_last_over_time",
            "ts_of_max_over_time",
            "ts_of_min_over_time",
        ),
        _EXPERIMENTAL,
    ),
}
"""Functions that Prometheus 3 has and we do not, each with the reason; limitk and limit_ratio are aggregations."""
