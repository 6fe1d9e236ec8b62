"""Alertmanager's configuration file, read and checked."""
