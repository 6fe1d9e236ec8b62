"""Alertmanager's API v2 as far as amtool, Grafana and Prometheus use it, and our own `/api/v1/notifications`.

Modules without I/O say what is asked and what is answered: `asked`, `posted`, `shown`, `delivery`. `routes` brings them
to HTTP; `model` is what they ask of the rest of the daemon.
"""
