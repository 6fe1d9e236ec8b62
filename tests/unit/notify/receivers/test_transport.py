"""TLS and who we are, as `http_config` says."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ConfigError
from exporter.notify.config.receivers import HttpConfig
from exporter.notify.receivers.answers import Answer
from exporter.notify.receivers.http import HttpClient
from exporter.notify.receivers.transport import transport_of

Start = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cert.pem` with `key.pem`, for 127.0.0.1; `locked.pem` is the key under a password, `other.pem` another key."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    curve = ("-pkeyopt", "ec_paramgen_curve:P-256")
    name = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        *curve,
        "-nodes",
        "-days",
        "2",
        *name,
        "-out",
        "cert.pem",
        "-keyout",
        "key.pem",
    )
    openssl("pkey", "-in", "key.pem", "-aes128", "-passout", "pass:x", "-out", "locked.pem")
    openssl("genpkey", "-algorithm", "EC", *curve, "-out", "other.pem")
    return folder


def server_tls(files: Path, *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    if asks:
        context.load_verify_locations(files / "cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def post(url: str, **tls: Any) -> Answer:
    options = HttpConfig.model_validate({"tls_config": tls})
    client = HttpClient(transport_of(options, "r/webhook[0]", timeout=5.0))
    try:
        return await client.post(url, b"{}", {}, now=0.0)
    finally:
        await client.close()


async def test_a_certificate_authority_of_ones_own_is_trusted(start: Start, files: Path) -> None:
    server = await start(tls=server_tls(files))
    assert (await post(server.url)).code is None
    assert (await post(server.url, ca_file=files / "cert.pem")).code == 200


async def test_a_name_that_is_expected_must_be_in_the_certificate(start: Start, files: Path) -> None:
    server = await start(tls=server_tls(files))
    answer = await post(server.url, ca_file=files / "cert.pem", server_name="hook.test")
    assert "is not trusted" in answer.problem


async def test_verification_can_be_given_up(start: Start, files: Path) -> None:
    server = await start(tls=server_tls(files))
    assert (await post(server.url, insecure_skip_verify=True)).code == 200


async def test_a_server_that_asks_for_our_certificate_gets_it(start: Start, files: Path) -> None:
    server = await start(tls=server_tls(files, asks=True))
    ours = {"cert_file": files / "cert.pem", "key_file": files / "key.pem"}
    assert (await post(server.url, ca_file=files / "cert.pem")).code is None
    assert (await post(server.url, ca_file=files / "cert.pem", **ours)).code == 200


@pytest.mark.parametrize("key", ["locked.pem", "other.pem"])
def test_a_key_that_cannot_be_used_is_named_and_nobody_is_asked_for_its_password(
    files: Path, key: str
) -> None:
    options = HttpConfig.model_validate(
        {"tls_config": {"cert_file": files / "cert.pem", "key_file": files / key}}
    )
    with pytest.raises(ConfigError, match=r"^r/webhook\[0\]: tls_config: .*\.pem: "):
        transport_of(options, "r/webhook[0]", timeout=5.0)


def test_a_secret_of_each_sort_is_masked() -> None:
    options = HttpConfig.model_validate(
        {
            "basic_auth": {"username": "me", "password": "pa55word"},
            "http_headers": {"X-A": {"values": ["shown"], "secrets": ["hidden1"]}},
        }
    )
    mask = transport_of(options, "r", timeout=5.0, urls=("http://h/p4th-of-mine",)).masker
    said = "shown hidden1 pa55word bWU6cGE1NXdvcmQ= p4th-of-mine"
    assert mask(said) == "shown <secret> <secret> <secret> <secret>"


def test_what_is_shown_of_a_transport_holds_no_secret() -> None:
    options = HttpConfig.model_validate(
        {"bearer_token": "pa55word", "http_headers": {"X-A": {"secrets": ["hidden1"]}}}
    )
    shown = repr(transport_of(options, "r", timeout=5.0))
    assert "Authorization" in shown and "X-A" in shown
    assert "pa55word" not in shown and "hidden1" not in shown
