"""Email by SMTP, with the standard library.

Not by apprise: it keeps the server's answer to itself, so that "later" (4xx) and "never" (5xx) look the same, sends one
mail per address, and knows neither an authority of one's own nor `hello`. What is not said here is as in Alertmanager's
`notify/email/email.go`.
"""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage

import structlog

from exporter.errors import ConfigError
from exporter.notify.config.receivers import EmailOptions
from exporter.notify.model import Context, Notification, Outcome
from exporter.notify.receivers import mail
from exporter.notify.receivers.blocking import SPARE_SECONDS, Threads
from exporter.notify.receivers.composing import beside, composed
from exporter.notify.receivers.masking import Masker, basic
from exporter.notify.receivers.transport import tls_of

log = structlog.get_logger(__name__)

IMPLICIT_TLS_PORT = 465
"""https://www.rfc-editor.org/rfc/rfc8314#section-3.3"""

QUIT_SECONDS = 1.0
"""How long the server may take to say goodbye."""

REMEMBERED = 100
"""Notifications of which it is known who lacks them: far more than are ever tried at once."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class EmailReceiver:
    """One mail to all addresses for each notification.

    Where the server takes it for some and puts others off (greylisting), the next attempt is for those alone. That is
    remembered for the last `REMEMBERED` notifications, but not over a restart or a reload that builds the endpoint anew:
    then all addresses get it again.
    """

    def __init__(self, options: EmailOptions, *, send_resolved: bool, place: str = "email") -> None:
        host, _, port = options.smarthost.rpartition(":")
        self._options = options
        self._send_resolved = send_resolved
        self._host, self._port = host.strip("[]"), int(port)
        implicit = options.force_implicit_tls
        self._implicit_tls = self._port == IMPLICIT_TLS_PORT if implicit is None else implicit
        self._tls = _context(tls_of(options.tls_config, place))
        self._sender, self._to = _addresses(options, place)
        self._password = options.auth_password.get_secret_value() if options.auth_password else ""
        self._masker = Masker(
            [self._password, basic(options.auth_username, self._password)] if self._password else ()
        )
        self._threads = Threads("notify-email")
        self._where = place
        self._put_off: dict[int, list[str]] = {}
        """Addresses that still lack a notification which others have, by its number."""

    @property
    def kind(self) -> str:
        """`email`."""
        return "email"

    @property
    def send_resolved(self) -> bool:
        """Whether it wants to know when alerts end."""
        return self._send_resolved

    @property
    def timeout(self) -> float:
        """Longest time in seconds of one attempt."""
        return self._most + SPARE_SECONDS

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt. One that takes too long is given up, and may arrive all the same."""
        message = await beside(notification, lambda: composed(notification, context))
        headers = self._options.headers
        written = mail.write(
            message, notification, sender=self._sender, to=self._to, headers=headers, now=context.now
        )
        number = notification.number
        addresses = self._put_off.get(number) or [to.addr_spec for to in self._to]
        later: list[str] = []
        outcome = await self._threads.attempt(
            lambda: self._deliver(written, addresses, later, others_have_it=number in self._put_off),
            self._most,
            self._place,
        )
        if outcome.result == "retry" and later:
            self._put_off[number] = later
            while len(self._put_off) > REMEMBERED:
                del self._put_off[next(iter(self._put_off))]
        elif outcome.result != "retry":
            self._put_off.pop(number, None)
        return outcome

    async def close(self) -> None:
        """Nothing to let go: each mail has a connection of its own."""

    @property
    def _most(self) -> float:
        """Goodbye comes when the mail is taken: it must not cost the attempt."""
        return self._options.timeout + QUIT_SECONDS

    @property
    def _place(self) -> str:
        return self._options.smarthost

    def _deliver(
        self, written: EmailMessage, addresses: list[str], later: list[str], *, others_have_it: bool
    ) -> Outcome:
        """One mail; addresses that are put off while others have the mail are added to `later`."""
        try:
            server = self._connect()
            try:
                if problem := self._greet(server):
                    return problem
                refused = server.send_message(written, self._sender.addr_spec, addresses)
            finally:
                _take_leave(server)
        except smtplib.SMTPRecipientsRefused as error:
            mildest = _mildest(error.recipients)
            if not others_have_it:
                return self._answered(*mildest, what="refused every address")
            # After a 421 the rest is not asked about.
            refused = {address: error.recipients.get(address, mildest) for address in addresses}
        except smtplib.SMTPResponseException as error:
            return self._answered(error.smtp_code, error.smtp_error)
        except smtplib.SMTPNotSupportedError:
            return Outcome(
                "refused", f"{self._place} does not offer what is needed (authentication, or UTF-8 addresses)"
            )
        except ssl.SSLCertVerificationError as error:
            return Outcome(
                "retry", f"the certificate of {self._place} is not trusted: {error.verify_message}"
            )
        except ssl.SSLError as error:
            return Outcome("retry", f"TLS with {self._place} failed: {error.reason or type(error).__name__}")
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            words = getattr(error, "strerror", None) or type(error).__name__
            return Outcome("retry", f"no mail to {self._place}: {str(words).lower()}")
        if not refused:
            return Outcome("delivered", f"{self._place} took it", 250)
        later += [address for address, (code, _) in refused.items() if _is_later(code)]
        never = len(refused) - len(later)
        if never:
            log.warning(
                "mail_refused", receiver=self._where, server=self._place, refused=never, of=len(self._to),
                code=next(code for code, _ in refused.values() if not _is_later(code)),
                advice="others got this mail; these addresses do not",
            )  # fmt: skip
        code, answer = _mildest(refused)
        said = self._masker.answer(_bytes(answer))
        if later:
            detail = f"{self._place} took it, but not yet for {len(later)} of {len(self._to)} addresses"
            return Outcome("retry", detail, code, answer=said)
        detail = f"{self._place} took it, but not for {never} of {len(self._to)} addresses"
        return Outcome("delivered", detail, code, answer=said)

    def _connect(self) -> smtplib.SMTP:
        hello = self._options.hello or None
        seconds = self._options.timeout
        if self._implicit_tls:
            server: smtplib.SMTP = _Implicit(self._tls, self._options.tls_config.server_name, hello, seconds)
        else:
            server = smtplib.SMTP(local_hostname=hello, timeout=seconds)
        try:
            code, answer = server.connect(self._host, self._port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, answer)
            server._host = self._options.tls_config.server_name or self._host  # type: ignore[attr-defined]
        except BaseException:
            server.close()
            raise
        return server

    def _greet(self, server: smtplib.SMTP) -> Outcome | None:
        """Everything before the mail; why there is none, or nothing."""
        server.ehlo_or_helo_if_needed()
        encrypted = self._implicit_tls
        if self._options.require_tls and not encrypted:
            if not server.has_extn("starttls"):
                return Outcome("retry", f"{self._place} offers no STARTTLS, which require_tls asks for")
            server.starttls(context=self._tls)
            server.ehlo()
            encrypted = True
        if self._options.auth_username and server.has_extn("auth"):
            if not encrypted and self._host not in _LOOPBACK:
                return Outcome(
                    "refused",
                    f"the password is not sent to {self._place} over a connection that is not encrypted",
                )
            server.login(self._options.auth_username, self._password)
        return None

    def _answered(self, code: int, answer: bytes | str, what: str = "") -> Outcome:
        """SMTP's codes: 4xx is "later", 5xx is "never"; https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1"""
        result = "retry" if _is_later(code) else "refused"
        said = f"{self._place} {what or 'answered'} {f'with {code}' if what else code}"
        return Outcome(result, said, code, answer=self._masker.answer(_bytes(answer)))  # type: ignore[arg-type]


class _Implicit(smtplib.SMTP_SSL):
    """TLS from the first byte, for a certificate of another name than the host's."""

    def __init__(self, context: ssl.SSLContext, name: str, hello: str | None, seconds: float) -> None:
        super().__init__(local_hostname=hello, timeout=seconds, context=context)
        self._name = name

    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
        plain = smtplib.SMTP._get_socket(self, host, port, timeout)  # type: ignore[attr-defined]
        return self.context.wrap_socket(plain, server_hostname=self._name or host)


def _take_leave(server: smtplib.SMTP) -> None:
    """Whatever the server makes of it: a mail that it took stays taken."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        if server.sock is not None:
            server.sock.settimeout(QUIT_SECONDS)
            server.quit()
    server.close()


def _context(tls: ssl.SSLContext | bool) -> ssl.SSLContext:
    return tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context()


def _addresses(options: EmailOptions, place: str) -> tuple[Address, list[Address]]:
    problems = []
    found: list[list[Address]] = []
    for name, text in (("from", options.from_), ("to", options.to)):
        try:
            found.append(mail.addresses(text))
        except (ValueError, IndexError):
            problems.append(
                f"{place}: {name}: expected addresses such as ops@example.org, separated by commas"
            )
    problems += [
        f"{place}: headers: {name}: expected one line of text"
        for name, value in options.headers.items()
        if not mail.is_header(name, value)
    ]
    if problems:
        raise ConfigError(problems)
    return found[0][0], found[1]


def _is_later(code: int) -> bool:
    return not 500 <= code < 600


def _mildest(refused: Mapping[str, tuple[int, bytes]]) -> tuple[int, bytes]:
    """An answer that says "later", where there is one."""
    answers = list(refused.values())
    return next((answer for answer in answers if _is_later(answer[0])), answers[0])


def _bytes(answer: bytes | str) -> bytes:
    return answer if isinstance(answer, bytes) else answer.encode("utf-8", "replace")
