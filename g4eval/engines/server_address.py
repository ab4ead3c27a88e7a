"""A server's address, key and headers as a user gives them: checked at once, shown without secrets.

Whatever can't be sent is refused here, before anything is: no later message has to quote it.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from g4eval.errors import ConfigError

_EXAMPLE = "for example --base-url http://127.0.0.1:8000/v1"
_HOST = re.compile(r"[\w.~-]+|[0-9A-Fa-f:.]+(%25[A-Za-z0-9._~-]+)?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Set by the client, or the frame of the message: another value breaks the request.
_OWN_HEADERS = ("content-length", "content-type", "host", "transfer-encoding", "connection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address taken apart."""

    public: str  # without user, password, query and fragment
    host: str
    scheme: str
    user: str
    password: str
    query: tuple[tuple[str, str], ...]

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it is the loopback interface, which no proxy can reach for us."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def proxy(self) -> str | None:
        """Return the proxy that the environment names for this address; None: none."""
        if self.is_of_this_machine:
            return None
        import urllib.request  # noqa: PLC0415  it brings http and email, and other engines need none

        if urllib.request.proxy_bypass(self.host):
            return None
        proxies = urllib.request.getproxies()
        return proxies.get(self.scheme) or proxies.get("all") or None


def parse_address(url: str) -> Address:
    """Return an address taken apart; raises ConfigError, which doesn't repeat it."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise _refused(url, "can't be read: its host or port is no host or port") from error
    if parts.scheme not in ("http", "https") or not host:
        raise _refused(url, "doesn't start with http:// or https:// and a host")
    behind = url[len(parts.scheme) + 3 + len(parts.netloc) :]
    if "@" in behind.partition("=")[0] or "@" in parts.fragment:  # of a query's value it may be
        raise _refused(url, "has an @ behind its host")
    if not _HOST.fullmatch(host) or port == 0 or _has_controls(url):
        raise _refused(url, "holds characters that no address can have")
    if any(not 0 < len(label) <= 63 for label in host.rstrip(".").split(".")):
        raise _refused(url, "has a host with an empty or endless part")
    return Address(
        public=public_address(url),
        host=host,
        scheme=parts.scheme,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )


def public_address(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host, number = parts.hostname or "", parts.port
    except ValueError:
        return "an address that can't be read"
    host = f"[{host}]" if ":" in host else host
    port = f":{number}" if number else ""
    path = parts.path.rpartition("@")[2] if "@" in parts.path else parts.path
    return urlunsplit((parts.scheme, host + port, path.rstrip("/"), "", ""))


def server_root(address: str) -> str:
    """Return where the server's own routes stand: the API's address without /v1."""
    return address.rstrip("/").removesuffix("/v1")


def api_key_from(environment: Mapping[str, str]) -> str | None:
    """Return the key of G4EVAL_API_KEY, else of OPENAI_API_KEY; None where neither is set.

    Raises ConfigError, which doesn't show it, for a key that no header can carry.
    """
    for name in ("G4EVAL_API_KEY", "OPENAI_API_KEY"):
        key = environment.get(name, "").strip()
        if key:
            check_header_value(key, where=name, what="the key")
            return key
    return None


def parse_headers(lines: Sequence[str]) -> dict[str, str]:
    """Return `NAME: VALUE` lines as a mapping; raises ConfigError, which shows no value."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise ConfigError("is not NAME: VALUE", where="--header", hint="as in 'api-key: …'")
        if name.lower() in _OWN_HEADERS:
            raise ConfigError(f"{name!r} is set by the client itself", where="--header")
        if not value:
            raise ConfigError(
                f"{name!r} has no value",
                where="--header",
                hint=f"values aren't stored: give it again, --header '{name}: …'",
            )
        check_header_value(value, where="--header", what=f"the value of {name!r}")
        headers[name] = value
    return headers


def check_header_value(value: str, *, where: str, what: str) -> None:
    """Raise ConfigError where no HTTP header can carry a value; it isn't shown."""
    wrong = next((place for place, c in enumerate(value, 1) if not " " <= c <= "~"), None)
    if wrong is not None:
        raise ConfigError(
            f"{what} has a character that no HTTP header can carry, the {wrong}. of {len(value)}",
            where=where,
            hint="a line break or a typographic quote came along with it: copy it again",
        )


def _refused(url: str, what: str) -> ConfigError:
    hint = _EXAMPLE
    if "@" in url:
        hint += "; in a user or password, / # ? @ are written %2F %23 %3F %40"
    return ConfigError(f"the server's address {what}", where="--base-url", hint=hint)


def _has_controls(text: str) -> bool:
    return any(c <= " " or c == "\x7f" for c in text)
