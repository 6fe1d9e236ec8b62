"""Alerts on their way to notifications: routed, grouped, held back, and told when something is new.

Every wait and every decision is Alertmanager's; `dispatcher` is the one that acts.
"""

from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.dispatch.views import AlertState, AlertView, GroupView

__all__ = ["AlertState", "AlertView", "Dispatcher", "GroupView"]
