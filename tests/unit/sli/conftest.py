"""A page as vLLM writes it, and the indicators that read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from exporter.exposition.block import Block
from exporter.exposition.layout import PageReader
from exporter.settings import SliSettings
from exporter.sli import Indicators

CAPTURE = Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt"


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels in braces, escaped."""

    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return (
        "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels.items()) + "}" if labels else ""
    )


class PageText:
    """Builds the text of a page, family by family."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def one(self, kind: str, name: str, *samples: tuple[Mapping[str, str], float]) -> PageText:
        """A counter or gauge family."""
        self.lines += [f"# HELP {name} x", f"# TYPE {name} {kind}"]
        self.lines += [f"{name}{labels_text(labels)} {value!r}" for labels, value in samples]
        return self

    def counter(self, name: str, *samples: tuple[Mapping[str, str], float]) -> PageText:
        return self.one("counter", name, *samples)

    def gauge(self, name: str, *samples: tuple[Mapping[str, str], float]) -> PageText:
        return self.one("gauge", name, *samples)

    def histogram(
        self, name: str, bounds: Sequence[float], *series: tuple[Mapping[str, str], Sequence[float]]
    ) -> PageText:
        """A histogram family, from the values observed."""
        self.lines += [f"# HELP {name} x", f"# TYPE {name} histogram"]
        for labels, values in series:
            for bound in (*bounds, float("inf")):
                le = "+Inf" if bound == float("inf") else repr(float(bound))
                count = sum(value <= bound for value in values)
                self.lines.append(f"{name}_bucket{labels_text({**labels, 'le': le})} {float(count)!r}")
            self.lines.append(f"{name}_count{labels_text(labels)} {float(len(values))!r}")
            self.lines.append(f"{name}_sum{labels_text(labels)} {float(sum(values))!r}")
        return self

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


class Watched:
    """Indicators behind a real page reader."""

    def __init__(self, *, model_limit: int = 64, series_limit: int = 100_000, **settings: object) -> None:
        self.block = Block()
        self.reader = PageReader()
        self.indicators = Indicators(
            SliSettings(**settings),
            self.block,
            model_limit=model_limit,
            scrape_interval=1.0,
            series_limit=series_limit,
        )
        self.now = 1000.0

    def see(
        self, page: PageText | str, *, epoch: str = "first", after: float = 1.0, serving: bool = True
    ) -> Watched:
        """One scrape, `after` seconds after the last."""
        self.now += after
        text = page if isinstance(page, str) else page.text
        row = self.reader.read(text.encode())
        self.indicators.apply(row, now=self.now, epoch=epoch, serving=serving)
        return self

    def miss(self, *, down: bool = True, after: float = 1.0) -> Watched:
        """One scrape without a page."""
        self.now += after
        self.indicators.missed(now=self.now, down=down)
        return self

    @property
    def shown(self) -> dict[str, float]:
        """What the block prints, by series."""
        pairs = (line.rpartition(" ") for line in self.block.render(openmetrics=False).decode().splitlines())
        return {head: float(value) for head, _, value in pairs if not head.startswith("# ")}

    def get(self, name: str, model: str = "m", **labels: str) -> float | None:
        """One `vllm_slo_` value of a model; None when absent."""
        return self.shown.get(
            f"vllm_slo_{name}{labels_text({'model_name': model, 'source': 'engine', **labels})}"
        )

    def requests(self, model: str = "m") -> dict[str, float]:
        """Requests by outcome, without the zeros."""
        found = {}
        for key, value in self.shown.items():
            if key.startswith(f'vllm_slo_requests_total{{model_name="{model}",') and value:
                found[re.findall(r'outcome="(\w+)"', key)[0]] = value
        return found

    def sources(self) -> dict[str, str]:
        """Which source serves which canonical name."""
        pattern = re.compile(r'vllm_exporter_source_info\{canonical="(.*?)",source="(.*?)"\}')
        return dict(match.groups() for key in self.shown if (match := pattern.fullmatch(key)))

    def cumulative(self, name: str, model: str = "m") -> list[float]:
        """A histogram's counts in the order of `le`, `+Inf` last."""
        head = f'vllm_slo_{name}_bucket{{model_name="{model}",source="engine",le="'
        return [value for key, value in self.shown.items() if key.startswith(head)]


@pytest.fixture(scope="session")
def watch() -> Callable[..., Watched]:
    """Makes indicators to watch."""
    return Watched


@pytest.fixture(scope="session")
def new_page() -> Callable[[], PageText]:
    """Begins a page."""
    return PageText


@pytest.fixture(scope="session")
def capture() -> str:
    """The page of a real vLLM 0.32.0 with traffic behind it."""
    return CAPTURE.read_text()
