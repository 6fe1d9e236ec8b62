"""Alertmanager's configuration file: routes, receivers, inhibitions, hours; and receivers that it lacks."""
