"""The words of a notification, with what the shipped runbook advises, made where making them delays nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from exporter.notify.message import Message, compose
from exporter.notify.model import Context, Notification
from exporter.notify.runbook import shipped_actions

T = TypeVar("T")

LARGE = 200
"""Alerts from which on a message is made in a thread, so that a storm delays no scrape."""


def composed(notification: Notification, context: Context) -> Message:
    """The message."""
    return compose(notification, context, actions=shipped_actions())


async def beside(notification: Notification, make: Callable[[], T]) -> T:
    """What is made of a notification: at once, or beside the event loop where there are many alerts."""
    return make() if len(notification.alerts) < LARGE else await asyncio.to_thread(make)
