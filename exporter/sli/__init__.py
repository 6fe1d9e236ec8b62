"""Service level indicators: one vocabulary for every vLLM version, totals that survive restarts, the derived series.

`Indicators` takes rows in and writes a block; `FAMILIES` is all that it can show.
"""

from exporter.sli.families import FAMILIES
from exporter.sli.indicators import Indicators, Progress
from exporter.sli.summary import Summary

__all__ = ["FAMILIES", "Indicators", "Progress", "Summary"]
