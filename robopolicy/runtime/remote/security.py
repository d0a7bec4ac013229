"""Who may ask: a token, loopback, TLS, and no web page."""

from __future__ import annotations

import hmac
import ipaddress
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from robopolicy.core.errors import ConfigError

TOKEN_VARIABLE = "ROBOPOLICY_TOKEN"
MIN_TOKEN = 16


def read_token(file: Path | None = None) -> str:
    """The token in a file, else in the environment variable ``ROBOPOLICY_TOKEN``; empty when neither is.

    Raises:
        ConfigError: unreadable, too short to resist guessing, or with characters a header cannot carry.
    """
    where = str(file) if file is not None else TOKEN_VARIABLE
    try:
        token = (file.read_text(encoding="utf-8") if file is not None else os.environ.get(where, "")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {file}: {error}") from error
    if not token and file is None:
        return ""
    if len(token) < MIN_TOKEN or not all("!" <= character <= "~" for character in token):
        raise ConfigError(
            f"the token in {where} must have at least {MIN_TOKEN} printable ASCII characters and no spaces; "
            "make one with: openssl rand -hex 32"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it may resolve to anything


def readable_on_the_way(url: str) -> bool:
    """Whether others may read what is sent there: no TLS, and beyond this machine."""
    parts = urlsplit(url)
    return parts.scheme != "wss" and not is_loopback(parts.hostname or "")


def check_exposure(host: str, token: str) -> None:
    """ConfigError when an address that others reach would be served without a token."""
    if not token and not is_loopback(host):
        raise ConfigError(
            f"serving on {host!r} needs a token, since other machines reach it: set {TOKEN_VARIABLE} or "
            "give --token-file (make one with: openssl rand -hex 32); 127.0.0.1 needs none"
        )


def authorised(headers: list[str], token: str) -> bool:
    """Whether a request's ``Authorization`` headers prove the token; always when there is none to prove."""
    if not token:
        return True
    given = headers[0] if len(headers) == 1 else ""
    return hmac.compare_digest(given.encode(errors="replace"), bearer(token).encode())


def bearer(token: str) -> str:
    return f"Bearer {token}"


def server_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with this certificate; None when neither is given."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("TLS needs both --cert and --key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the certificate {cert} with the key {key}: {error}") from error
    return context


def check_url(url: str) -> str:
    """The URL, if it can be one of a server; a token belongs into the environment, never into it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number
        usable, parts = False, urlsplit("")
    if not usable:
        shown = "one with an @" if "@" in url else repr(url)  # what stands before it may be a password
        raise ConfigError(f"a server's URL is ws://HOST:PORT or wss://HOST:PORT, got {shown}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"no secrets in a URL: only ws(s)://{parts.hostname}:PORT; set {TOKEN_VARIABLE}")
    return url
