"""A signature by which a webhook's consumer knows that a body is ours, and of now.

`X-VLLM-Exporter-Signature: t=<unix seconds>,v1=<hex>`, where hex is HMAC-SHA256 with the shared secret over the time as
it stands in the header, a full stop, and the body's bytes (the scheme is Stripe's:
https://docs.stripe.com/webhooks#verify-manually). A consumer refuses a time that is minutes away: then nobody can send
an old body again.
"""

from __future__ import annotations

import hashlib
import hmac

HEADER = "X-VLLM-Exporter-Signature"


def sign(secret: str, body: bytes, at: float) -> str:
    """The header's value for a body that is sent at a time (unix seconds)."""
    moment = str(int(at))
    digest = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256)
    return f"t={moment},v1={digest.hexdigest()}"
