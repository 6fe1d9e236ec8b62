"""The signature over time and body."""

from __future__ import annotations

import hashlib
import hmac
import subprocess

from exporter.notify.receivers.signature import HEADER, sign


def test_a_consumer_can_check_it_with_nothing_but_hmac_and_sha256() -> None:
    body = '{"status":"firing","说":"火"}'.encode()
    value = sign("geheim", body, 1_700_000_000.9)
    fields = dict(part.split("=", 1) for part in value.split(","))
    assert fields["t"] == "1700000000"
    expected = hmac.new(b"geheim", fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert fields["v1"] == expected
    assert HEADER == "X-VLLM-Exporter-Signature"


def test_it_is_what_openssl_computes() -> None:
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", "key"], input=b"5.hello", capture_output=True, check=True
    )
    assert done.stdout.decode().split("= ")[1].strip() == sign("key", b"hello", 5.0).split("v1=")[1]


def test_another_time_body_or_secret_is_another_signature() -> None:
    assert len({sign("a", b"x", 1), sign("a", b"x", 2), sign("a", b"y", 1), sign("b", b"x", 1)}) == 4
