"""What the API asks of the rest of the daemon; every call is made in the event loop and answered at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.notify.config.model import NotifyConfig
    from exporter.notify.delivery.delivery import Delivery
    from exporter.notify.dispatch.dispatcher import Dispatcher
    from exporter.notify.outbox.outbox import Outbox


class Alerting(Protocol):
    """What stands behind the API. Each is asked anew at each request, so that a reload may replace it."""

    @property
    def config(self) -> NotifyConfig:
        """The configuration that is carried out."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Alerts, their groups, and silences."""

    @property
    def delivery(self) -> Delivery:
        """What is on its way."""

    @property
    def outbox(self) -> Outbox:
        """What was given up."""

    @property
    def started(self) -> float:
        """When this daemon began, unix seconds."""


class ApiRefused(Exception):  # noqa: N818
    """A request that is not carried out; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
