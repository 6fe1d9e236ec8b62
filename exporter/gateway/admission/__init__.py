"""Who is let through to which engine, and when: limits, the queue, and the fleet of backends.

Nothing here awaits. Times are passed in or read from one clock; what waits is woken through the event loop.
"""
