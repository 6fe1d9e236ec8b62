"""What one client may take of the daemon. Seconds and bytes."""

from __future__ import annotations

CONNECTIONS = 512
"""Open connections; one more closes the one that has been quiet for longest, so a scraper always gets in."""

BACKLOG = 512
"""Connections that the kernel holds while the loop is busy."""

HEAD_BYTES = 8190
"""One request line, one header field, and the whole head on the short way."""

HEADERS = 64
"""Header fields of one request."""

BODY_BYTES = 4096
"""Most paths take no body; clients that send a small one with GET all the same are answered."""

FORM_BYTES = 1 << 20
"""A form-encoded query in the body of a request to the API."""

REQUEST_SECONDS = 30.0
"""From the connection, or from the answer before, to a complete request head, where aiohttp reads it; and from the
connection to its first byte. Ends slow lorises."""

IDLE_SECONDS = 150.0
"""Keep-alive of a connection that has scraped. Longer than two usual scrape intervals of a minute, so that it is the
scraper who closes: a server that closes first can cross a request on its way."""

STALLED_SECONDS = 30.0
"""How long an answer may wait for its reader."""

LINGER_SECONDS = 2.0
"""How long an unread request body is read away before the connection is closed."""

SWEEP_SECONDS = 5.0
"""Time between two looks for connections to be closed."""

HANDSHAKE_SECONDS = 10.0
"""For TLS."""

SEND_BUFFER_BYTES = 256 << 10
"""Kernel's send buffer for each connection: a page leaves in one call."""

TURN_REQUESTS = 8
"""Pipelined requests answered before the loop gets its turn."""

KNOWN_HEADS = 128
"""Distinct request heads remembered; a scraper sends the same one each time."""
