"""The families that tell how scraping goes."""

from exporter.exposition.model import Family

SCRAPES = Family(
    "vllm_exporter_scrapes_total", "counter", "Scrapes of the engine's metrics page that were tried."
)
ERRORS = Family(
    "vllm_exporter_scrape_errors_total",
    "counter",
    "Scrapes of the engine that brought no usable page, by reason.",
    ("reason",),
)
SUCCESS = Family(
    "vllm_exporter_scrape_success", "gauge", "Whether the last scrape of the engine brought a usable page."
)
DURATION = Family(
    "vllm_exporter_scrape_duration_seconds",
    "histogram",
    "Time from the request to the engine until its page was taken in.",
    unit="seconds",
)
SAMPLES = Family("vllm_exporter_scrape_samples", "gauge", "Samples in the engine's last page.")
BODY = Family("vllm_exporter_scrape_body_bytes", "gauge", "Size of the engine's last page.", unit="bytes")
LAST_SUCCESS = Family(
    "vllm_exporter_scrape_last_success_timestamp_seconds",
    "gauge",
    "When the last usable page of the engine came, in seconds since 1970.",
    unit="seconds",
)
DROPPED = Family(
    "vllm_exporter_scrape_series_dropped_total",
    "counter",
    "Series of the engine's pages that were left out: duplicates, and names that belong to this program.",
    ("reason",),
)

FAMILIES = (SCRAPES, ERRORS, SUCCESS, DURATION, SAMPLES, BODY, LAST_SUCCESS, DROPPED)

DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REASONS = (
    "body_limit",
    "connect",
    "content_type",
    "encoding",
    "label_limit",
    "parse",
    "protocol",
    "redirect",
    "sample_limit",
    "status",
    "timeout",
)
"""Every value of the `reason` label of `vllm_exporter_scrape_errors_total`."""
