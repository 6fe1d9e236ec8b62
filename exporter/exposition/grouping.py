"""How a source's samples are grouped into the families of a converted page.

OpenMetrics is stricter than text 0.0.4: a family stands in one piece, no two families may claim one name, histograms
are complete. What cannot be said as its own type is shown as `unknown` under its samples' own names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from exporter.exposition.families import FamilyText
from exporter.exposition.model import Series

_CLAIMS: dict[str, tuple[str, ...]] = {
    "counter": ("", "_total", "_created"),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("", "_bucket", "_gcount", "_gsum"),
    "summary": ("", "_count", "_sum", "_created"),
    "info": ("", "_info"),
}
_TEXT_TYPES = {"unknown": "untyped", "info": "gauge", "stateset": "gauge"}


@dataclass(slots=True)
class OutputFamily:
    """One family as it is printed; `samples` are places in the page's list of samples, in the order to print."""

    name: str
    type: str
    help: str | None
    unit: str | None = None
    samples: list[int] = field(default_factory=list)


Members = Sequence[tuple[FamilyText, list[int]]]


def for_text(members: Members, series: Sequence[Series]) -> list[OutputFamily]:
    """The families of a text 0.0.4 page, made from an OpenMetrics source."""
    outputs: list[OutputFamily] = []
    for family, samples in members:
        if family.type == "gaugehistogram":
            outputs += _by_sample_name(family, samples, series, "untyped").values()
        else:
            kind = _TEXT_TYPES.get(family.type, family.type)
            outputs.append(OutputFamily(family.text_name, kind, family.help, None, samples))
    return outputs


def for_openmetrics(members: Members, series: Sequence[Series]) -> list[OutputFamily]:
    """The families of an OpenMetrics page, from a source of either format."""
    drafts: list[OutputFamily] = []
    broken: set[int] = set()
    claimed: set[str] = set()
    for family, samples in members:
        draft = _draft(family, samples)
        if draft.type in ("histogram", "summary"):
            ordered = _in_order(draft, series)
            draft = replace(draft, samples=samples if ordered is None else ordered)
            if ordered is None:
                broken.add(id(draft))
        if draft.type not in _CLAIMS:  # nothing but the one name would do for these: they go first
            if draft.name in claimed:
                broken.add(id(draft))
            claimed.add(draft.name)
        drafts.append(draft)
    for draft in drafts:
        if draft.type in _CLAIMS and id(draft) not in broken:
            names = {draft.name + suffix for suffix in _CLAIMS[draft.type]}
            if names & claimed:
                broken.add(id(draft))
            else:
                claimed |= names
    outputs = {draft.name: draft for draft in drafts if id(draft) not in broken}
    order: list[OutputFamily] = []
    for draft in drafts:
        if id(draft) not in broken:
            order.append(draft)
            continue
        for name, part in _by_sample_name(draft, draft.samples, series, "unknown").items():
            if name not in claimed:
                claimed.add(name)
                outputs[name] = part
                order.append(part)
            elif name in outputs and outputs[name].type in ("unknown", "gauge"):
                outputs[name].samples += part.samples
    return order


def _draft(family: FamilyText, samples: list[int]) -> OutputFamily:
    name, kind = family.name, str(family.type)
    unit = None if kind in ("info", "stateset") else family.unit
    if kind == "counter" and not family.openmetrics:
        if name.endswith("_total"):
            name = name.removesuffix("_total")
        else:
            kind = "unknown"
    return OutputFamily(name, kind, family.help, unit, samples)


def _by_sample_name(
    family: FamilyText | OutputFamily, samples: list[int], series: Sequence[Series], kind: str
) -> dict[str, OutputFamily]:
    parts: dict[str, OutputFamily] = {}
    for k in samples:
        name = series[k].name
        part = parts.get(name)
        if part is None:
            part = parts[name] = OutputFamily(name, kind, family.help)
        part.samples.append(k)
    return parts


def _in_order(family: OutputFamily, series: Sequence[Series]) -> list[int] | None:
    """A histogram's or summary's samples, each label set in one piece, bounds rising; None when it is not complete."""
    bound_label = "le" if family.type == "histogram" else "quantile"
    bound_name = f"{family.name}_bucket" if family.type == "histogram" else family.name
    groups: dict[tuple[tuple[str, str], ...], list[tuple[int, float, int]]] = {}
    for k in family.samples:
        name, labels = series[k].name, series[k].labels
        rank, bound = 1 if name.endswith("_count") else 2, 0.0
        if name == bound_name:
            try:
                rank, bound = 0, float(series[k].label(bound_label, "nan"))
            except ValueError:
                return None
            if bound != bound:
                return None
            labels = tuple(label for label in labels if label[0] != bound_label)
        groups.setdefault(labels, []).append((rank, bound, k))
    for group in groups.values():
        group.sort()
        if not _is_complete(family.type, group):
            return None
    return [k for group in groups.values() for _, _, k in group]


def _is_complete(kind: str, group: list[tuple[int, float, int]]) -> bool:
    bounds = [bound for rank, bound, _ in group if rank == 0]
    ranks = {rank for rank, _, _ in group}
    if len(set(bounds)) != len(bounds):
        return False
    if kind == "summary":
        return all(0 <= bound <= 1 for bound in bounds)
    if not bounds or bounds[-1] != inf or (1 in ranks) != (2 in ranks):
        return False
    return bounds[0] >= 0 or 2 not in ranks
