"""What the running daemon tells of itself."""

from __future__ import annotations

from exporter.settings import load_settings
from exporter.web.api.daemon import alertmanager_urls


def test_the_alertmanagers_are_listed_without_what_may_be_secret_in_their_addresses() -> None:
    urls = "http://user:hunter2@am-1:9093/hunter2?token=hunter2 https://am-2"
    settings = load_settings({"notify.alertmanagers": urls}, environ={})
    assert alertmanager_urls(settings) == ["http://am-1:9093/api/v2/alerts", "https://am-2/api/v2/alerts"]
