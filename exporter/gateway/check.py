"""What `check config` can say of the gateway before anything runs: its address, its certificate, its keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.errors import ConfigError
from exporter.gateway.address import Candidate, GatewayOff, GatewayOn, plan
from exporter.gateway.keys.file import read_keys
from exporter.settings import Settings, parse_listen
from exporter.tls import server_context

_ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  compared, not bound


def check_gateway(settings: Settings, engines: Sequence[Candidate]) -> GatewayOn | GatewayOff:
    """Where clients would come, or why there would be no gateway. Blocks; ConfigError has every mistake."""
    place: GatewayOn | GatewayOff = GatewayOff()
    problems: list[str] = []

    def attempt(check: Callable[[], object]) -> None:
        try:
            check()
        except ConfigError as error:
            problems.extend(error.problems)

    def find_place() -> None:
        nonlocal place
        place = plan(settings.gateway, engines)

    attempt(find_place)
    options = settings.gateway
    cert, key = options.tls_cert_file, options.tls_key_file
    if isinstance(place, GatewayOn):
        cert, key = place.tls_cert_file, place.tls_key_file
        own = parse_listen(settings.web.listen)
        if _meet((place.host, place.port), own):
            problems.append(
                f"gateway.listen: {place.host}:{place.port} is where the daemon's own page is (web.listen); "
                "give one of them another port"
            )
    if options.mode != "off":
        attempt(lambda: server_context(cert, key, section="gateway"))
        keys_file = options.keys_file
        if keys_file is not None:
            attempt(lambda: read_keys(keys_file))
    if problems:
        raise ConfigError(problems)
    return place


def _meet(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two listeners would be in each other's way. Port 0 is in nobody's."""
    same_host = one[0] == other[0] or not _ANY.isdisjoint((one[0], other[0]))
    return one[1] == other[1] != 0 and same_host
