"""Settings: command line flags > environment > systemd credentials > TOML or YAML file > defaults."""

from exporter.settings.engines import EngineEntry
from exporter.settings.gateway import GatewaySettings
from exporter.settings.load import ENV_PREFIX, FLAGS, Settings, load_settings, option_names
from exporter.settings.sections import (
    EngineSettings,
    GpuSettings,
    LogSettings,
    NotifySettings,
    RuleSettings,
    ScrapeSettings,
    SliSettings,
    StorageSettings,
    WebSettings,
    default_data_dir,
    parse_listen,
)

__all__ = [
    "ENV_PREFIX",
    "FLAGS",
    "EngineEntry",
    "EngineSettings",
    "GatewaySettings",
    "GpuSettings",
    "LogSettings",
    "NotifySettings",
    "RuleSettings",
    "ScrapeSettings",
    "Settings",
    "SliSettings",
    "StorageSettings",
    "WebSettings",
    "default_data_dir",
    "load_settings",
    "option_names",
    "parse_listen",
]
