"""Go's text templates, as Prometheus' rule files use them in labels and annotations."""

from __future__ import annotations

from exporter.alerting.template.errors import TemplateError
from exporter.alerting.template.template import QuerySample, Template

__all__ = ["QuerySample", "Template", "TemplateError"]
