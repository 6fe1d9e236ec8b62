"""Email to an SMTP server on loopback that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import socket
import ssl
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.errors import ConfigError
from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import EmailOptions
from exporter.notify.model import Context, Notification, Receiver
from exporter.notify.receivers.build import build


@dataclass
class Sink:
    """One mail server; `replies` says what it answers to a command, by its beginning, in place of yes."""

    port: int
    extensions: tuple[str, ...] = ()
    replies: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    implicit: bool = False
    commands: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    encrypted: bool = False

    @property
    def mail(self) -> EmailMessage:
        (octets,) = self.mails
        read = email.message_from_bytes(octets, policy=email.policy.default)
        assert isinstance(read, EmailMessage)
        return read

    def serve(self, connection: socket.socket, stack: contextlib.ExitStack) -> None:
        if self.implicit:
            assert self.tls is not None
            connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            self.encrypted = True
        stream = stack.enter_context(connection.makefile("rwb"))

        def say(line: str) -> None:
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        if greeting := self.replies.get("", "220 sink"):
            say(greeting)
        while line := stream.readline():
            command = line.decode().rstrip()
            self.commands.append(command)
            told = next(
                (text for start, text in self.replies.items() if start and command.startswith(start)), None
            )
            verb = command.split(" ")[0].upper()
            if told is not None:
                if told:
                    say(told)
            elif verb == "EHLO":
                say("250-sink")
                for extension in self.extensions:
                    say(f"250-{extension}")
                say("250 8BITMIME")
            elif verb == "STARTTLS":
                say("220 go on")
                assert self.tls is not None
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
                stream = stack.enter_context(connection.makefile("rwb"))
                self.encrypted = True
            elif verb == "AUTH":
                say("235 fine")
            elif verb == "DATA":
                say("354 go on")
                octets = b""
                while (line := stream.readline()) != b".\r\n":
                    octets += line
                self.mails.append(octets)
                say(self.replies.get(".", "250 taken"))
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 fine")


@pytest.fixture
def start() -> Iterator[Callable[..., Sink]]:
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def one(host: str = "127.0.0.1", **more: Any) -> Sink:
        server = socket.create_server((host, 0))
        servers.append(server)
        sink = Sink(server.getsockname()[1], **more)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(5)
                with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                    stack.enter_context(connection)
                    sink.serve(connection, stack)

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[-1].start()
        return sink

    yield one
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=mail.test",
        "-addext",
        "subjectAltName=DNS:mail.test",
        "-out",
        str(cert),
        "-keyout",
        str(key),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def receiver(port: int, **more: Any) -> Receiver:
    options = {
        "from": "vLLM <vllm@example.org>",
        "to": "王 <wang@example.org>, ops@example.org",
        "smarthost": f"127.0.0.1:{port}",
        "require_tls": False,
        **more,
    }
    return build(Endpoint("people", "email[0]", "email", True, EmailOptions.model_validate(options)))


async def test_one_mail_goes_to_all_as_text_and_html(
    start: Any, make_notification: Callable[..., Notification], make_alert: Any, context: Context
) -> None:
    sink = start()
    alert = make_alert(annotations=(("description", "31% <b>failed</b>"), ("summary", "重い")))
    outcome = await receiver(sink.port, hello="box.example.org").send(make_notification(alert), context)
    assert outcome.result == "delivered"
    assert sink.commands[0] == "ehlo box.example.org"
    assert sink.commands[1].startswith("mail FROM:<vllm@example.org>")
    assert sink.commands[2:4] == ["rcpt TO:<wang@example.org>", "rcpt TO:<ops@example.org>"]
    mail = sink.mail
    assert mail["Subject"] == "CRITICAL: 重い"
    assert mail["From"] == "vLLM <vllm@example.org>"
    assert mail["To"] == "王 <wang@example.org>, ops@example.org"
    assert mail["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    text, markup = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None and "31% <b>failed</b>" in text.get_content()
    assert markup is not None and "31% &lt;b&gt;failed&lt;/b&gt;<br>" in markup.get_content()


async def test_mails_about_one_group_are_one_thread(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start()
    sender = receiver(sink.port)
    for number, key in ((1, "a"), (2, "a"), (3, "b")):
        await sender.send(make_notification(number=number, group_key=key), context)
    mails = [email.message_from_bytes(octets) for octets in sink.mails]
    threads = [mail["References"] for mail in mails]
    assert threads[0] == threads[1] != threads[2]
    assert len({mail["Message-ID"] for mail in mails}) == 3


async def test_headers_of_the_configuration_replace_ours(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start()
    headers = {"subject": "vLLM", "X-Team": "推理", "Content-Type": "text/evil"}
    await receiver(sink.port, headers=headers).send(make_notification(), context)
    assert sink.mail["Subject"] == "vLLM"
    assert sink.mail["X-Team"] == "推理"
    assert sink.mail.get_content_type() == "multipart/alternative"


async def test_a_password_goes_over_tls_to_the_server_that_is_meant(
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    certificate: tuple[Path, Path],
) -> None:
    sink = start(extensions=("STARTTLS", "AUTH PLAIN"), tls=server_tls(certificate))
    login = {"auth_username": "vllm", "auth_password": "p4ssword", "require_tls": True}
    distrusted = await receiver(sink.port, **login).send(make_notification(), context)
    assert distrusted.result == "retry"
    assert (
        distrusted.detail
        == f"the certificate of 127.0.0.1:{sink.port} is not trusted: self-signed certificate"
    )
    sink.commands.clear()
    tls = {"ca_file": str(certificate[0]), "server_name": "mail.test"}
    outcome = await receiver(sink.port, tls_config=tls, **login).send(make_notification(), context)
    assert outcome.result == "delivered"
    assert sink.encrypted
    auth = next(command for command in sink.commands if command.startswith("AUTH"))
    assert b64decode(auth.split(" ")[2]) == b"\0vllm\0p4ssword"


async def test_tls_from_the_first_byte(
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    certificate: tuple[Path, Path],
) -> None:
    sink = start(tls=server_tls(certificate), implicit=True)
    tls = {"ca_file": str(certificate[0]), "server_name": "mail.test"}
    outcome = await receiver(sink.port, tls_config=tls, force_implicit_tls=True).send(
        make_notification(), context
    )
    assert outcome.result == "delivered"
    assert sink.encrypted and len(sink.mails) == 1


async def test_without_the_tls_that_is_required_nothing_is_sent(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start()
    outcome = await receiver(sink.port, require_tls=True).send(make_notification(), context)
    assert outcome.result == "retry"
    assert "offers no STARTTLS" in outcome.detail
    assert not any(command.startswith("mail") for command in sink.commands)


@pytest.mark.parametrize(
    ("replies", "result", "code"),
    [
        ({"mail": "451 later"}, "retry", 451),
        ({"mail": "550 never"}, "refused", 550),
        ({"rcpt": "450 mailbox busy"}, "retry", 450),
        ({"rcpt": "550 nobody here"}, "refused", 550),
        ({".": "554 spam"}, "refused", 554),
        ({".": "452 full"}, "retry", 452),
        ({"": "421 closing"}, "retry", 421),
        ({"": "554 go away"}, "refused", 554),
    ],
)
async def test_4xx_is_later_and_5xx_never(
    replies: dict[str, str],
    result: str,
    code: int,
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    sink = start(replies=replies)
    outcome = await receiver(sink.port).send(make_notification(), context)
    assert (outcome.result, outcome.code) == (result, code)
    assert outcome.answer == next(iter(replies.values()))[4:]


async def test_a_wrong_password_is_final_and_not_shown(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(extensions=("AUTH PLAIN",), replies={"AUTH": "535 no: p4ssword"})
    login = {"auth_username": "vllm", "auth_password": "p4ssword"}
    outcome = await receiver(sink.port, **login).send(make_notification(), context)
    assert (outcome.result, outcome.code) == ("refused", 535)
    assert outcome.answer == "no: <secret>"


async def test_a_password_does_not_leave_the_machine_unless_it_is_encrypted(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start("127.0.0.2", extensions=("AUTH PLAIN",))
    login = {"auth_username": "vllm", "auth_password": "p4ssword", "smarthost": f"127.0.0.2:{sink.port}"}
    outcome = await receiver(sink.port, **login).send(make_notification(), context)
    assert outcome.result == "refused"
    assert "not encrypted" in outcome.detail
    assert not any(command.startswith("AUTH") for command in sink.commands)


async def test_a_mail_that_some_addresses_do_not_get_is_not_sent_again_to_the_others(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(replies={"rcpt TO:<ops": "550 no ops here"})
    outcome = await receiver(sink.port).send(make_notification(), context)
    assert outcome.result == "delivered"
    assert outcome.detail == f"127.0.0.1:{sink.port} took it, but not for 1 of 2 addresses"
    assert (outcome.code, outcome.answer) == (550, "no ops here")


async def test_addresses_that_are_put_off_get_the_mail_later_and_the_others_do_not_get_it_again(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(replies={"rcpt TO:<ops": "451 greylisted"})
    sender = receiver(sink.port)
    outcome = await sender.send(make_notification(), context)
    assert (outcome.result, outcome.code, outcome.answer) == ("retry", 451, "greylisted")
    assert outcome.detail == f"127.0.0.1:{sink.port} took it, but not yet for 1 of 2 addresses"
    assert (await sender.send(make_notification(), context)).result == "retry", "put off once more"
    sink.replies.clear()
    sink.commands.clear()
    assert (await sender.send(make_notification(), context)).result == "delivered"
    assert [line for line in sink.commands if line.startswith("rcpt")] == ["rcpt TO:<ops@example.org>"]
    assert len(sink.mails) == 2
    sink.commands.clear()
    assert (await sender.send(make_notification(number=2), context)).result == "delivered"
    assert sum(line.startswith("rcpt") for line in sink.commands) == 2, "the next mail is for all again"


async def test_a_mail_that_only_some_lack_is_not_lost_when_they_are_refused_in_the_end(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(replies={"rcpt TO:<ops": "451 greylisted"})
    sender = receiver(sink.port)
    await sender.send(make_notification(), context)
    sink.replies["rcpt TO:<ops"] = "550 nobody here"
    with capture_logs() as logged:
        outcome = await sender.send(make_notification(), context)
    assert (outcome.result, outcome.code) == ("delivered", 550)
    (entry,) = logged
    assert (entry["event"], entry["code"], entry["refused"], entry["of"]) == ("mail_refused", 550, 1, 2)
    assert "example.org" not in str(entry)


async def test_a_server_that_closes_in_between_loses_nobody_who_was_put_off(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(replies={"rcpt TO:<b@": "451 greylisted", "rcpt TO:<c@": "451 greylisted"})
    sender = receiver(sink.port, to="a@example.org, b@example.org, c@example.org")
    await sender.send(make_notification(), context)
    sink.replies = {"rcpt TO:<b@": "421 closing"}
    assert (await sender.send(make_notification(), context)).result == "retry"
    sink.replies.clear()
    sink.commands.clear()
    assert (await sender.send(make_notification(), context)).result == "delivered"
    asked = [line for line in sink.commands if line.startswith("rcpt")]
    assert asked == ["rcpt TO:<b@example.org>", "rcpt TO:<c@example.org>"]


async def test_where_nobody_is_taken_one_who_is_put_off_is_enough_to_try_again(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(replies={"rcpt TO:<wang": "550 nobody here", "rcpt TO:<ops": "451 greylisted"})
    outcome = await receiver(sink.port).send(make_notification(), context)
    assert (outcome.result, outcome.code, outcome.answer) == ("retry", 451, "greylisted")


@pytest.mark.parametrize("goodbye", ["500 what?", ""])
async def test_a_mail_that_was_taken_stays_taken_whatever_the_server_says_at_the_end(
    goodbye: str,
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.notify.receivers.email.QUIT_SECONDS", 0.1)
    sink = start(replies={"quit": goodbye})
    assert (await receiver(sink.port).send(make_notification(), context)).result == "delivered"
    assert len(sink.mails) == 1


async def test_a_server_that_is_slow_to_say_goodbye_is_not_sent_the_mail_again(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    sink = start(replies={"quit": ""})
    sender = receiver(sink.port, timeout="300ms")
    async with asyncio.timeout(sender.timeout):  # as delivery does
        assert (await sender.send(make_notification(), context)).result == "delivered"


async def test_a_server_that_is_not_there_or_says_nothing_may_be_tried_again(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    outcome = await receiver(port).send(make_notification(), context)
    assert (outcome.result, outcome.detail) == ("retry", f"no mail to 127.0.0.1:{port}: connection refused")
    silent = start(replies={"": ""})
    outcome = await receiver(silent.port, timeout="200ms").send(make_notification(), context)
    assert outcome.result == "retry"


async def test_addresses_that_are_none_are_mistakes() -> None:
    with pytest.raises(ConfigError) as caught:
        receiver(25, **{"from": "nobody", "to": "", "headers": {"X-Team": "a\nBcc: b@c.d"}})
    assert [problem.split(": expected")[0] for problem in caught.value.problems] == [
        "people/email[0]: from",
        "people/email[0]: to",
        "people/email[0]: headers: X-Team",
    ]
