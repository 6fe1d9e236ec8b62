"""The page at `/`: where things are, and how the engine is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from exporter import __version__

if TYPE_CHECKING:
    from exporter.web.readiness import Readiness

_LINKS = (
    ("/metrics", "metrics, in Prometheus text or OpenMetrics by <code>Accept</code>"),
    ("/api/v1/metrics", "the state of engine, GPUs and alerts, as one JSON object"),
    ("/api/v1/rules", "rules and what they found, as Prometheus shows them"),
    ("/api/v1/alerts", "pending and firing alerts"),
    ("/rules/RUNBOOK.md", "for each alert: what it means, what to look at, what to do"),
    ("/-/ready", "whether the engine can serve; alias <code>/health</code>"),
    ("/-/healthy", "whether this daemon is alive"),
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>vllm-exporter: {state}</title>
<style>body{{font:1rem/1.6 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}
code,strong{{font-family:ui-monospace,monospace}}</style>
</head>
<body>
<h1>vllm-exporter</h1>
<p>Version {version}. {what}: <strong>{state}</strong></p>
<p>{line}</p>
{engines}<ul>
{links}
</ul>
</body>
</html>
"""


def landing_page(readiness: Readiness) -> str:
    """The whole page; what comes from outside is escaped."""
    links = "\n".join(f'<li><a href="{path}"><code>{path}</code></a>: {text}</li>' for path, text in _LINKS)
    engines = readiness.body.get("engines")
    several = engines is not None
    return _PAGE.format(
        version=escape(__version__),
        what="Engines" if several else "Engine",
        state=escape(str(readiness.body["state"])),
        line=escape(str(readiness.body["reason"]) if several else readiness.line),
        engines=_engines(engines) if isinstance(engines, dict) else "",
        links=links,
    )


def _engines(engines: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each of several engines."""
    lines = [
        f"<li>{escape(name)}: <strong>{escape(str(body['state']))}</strong>, {escape(str(body['reason']))}</li>"
        for name, body in engines.items()
    ]
    return "<ul>\n" + "\n".join(lines) + "\n</ul>\n"
