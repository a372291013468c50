"""Which addresses may see patient data: loopback, and hosts that the configuration names. A URL goes in and comes out.

Every request of this room goes through an address that was checked here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from contracts.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address) is this machine's loopback interface."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_address(url: str, allowed_hosts: Collection[str] = ()) -> str:
    """The base address of an OpenAI-compatible server, without `/v1` and without a trailing slash.

    Args:
        url: e.g. `http://127.0.0.1:8000` or `http://127.0.0.1:8000/v1`.
        allowed_hosts: hosts beyond loopback that may be asked.

    Raises:
        ConfigError: the URL is not http(s), carries credentials, or names a host that may not see patient data.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"serving.url={url!r}", "http(s)://HOST[:PORT], with or without /v1", "correct serving.url")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"serving.url names a user at {host}", "the address carries no credentials",
                          "give the key in the environment variable EAG_RL_API_KEY")
    if not is_loopback(host) and host.casefold() not in {name.casefold() for name in allowed_hosts}:
        raise ConfigError(f"serving.url names the host {host!r}",
                          "prompts hold patient data and go to loopback, or to a host named in serving.allowed_hosts",
                          "use 127.0.0.1, or add the host to serving.allowed_hosts if it may see the data")
    bracketed = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{bracketed}{'' if port is None else f':{port}'}{path}"
