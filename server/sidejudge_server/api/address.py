"""Where the server listens: loopback or a unix socket, nothing that the network can reach."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sidejudge_server.config import ConfigError

__all__ = ["ListenAddress", "listen_address", "private_socket"]

_UNIX_PREFIX = "unix:"
_SOCKET_UMASK = 0o117
"""Leaves 0660: owner and group may connect."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A checked address. ``path`` is set for unix sockets, ``host`` and ``port`` for TCP."""

    text: str
    host: str = ""
    port: int = 0
    path: Path | None = None
    setting: str = "server.address"

    def with_port(self, port: int) -> str:
        """Return the address that clients connect to, given the port that was bound."""
        if self.path is not None:
            return self.text
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{port}"


def listen_address(text: str, *, setting: str = "server.address") -> ListenAddress:
    """Check an address that a setting names.

    Raises:
        ConfigError: It is malformed, or others than this machine could connect to it.
    """
    if text.startswith(_UNIX_PREFIX):
        path = text.removeprefix(_UNIX_PREFIX)
        if path.startswith("///"):
            path = path[2:]
        if not path.strip("/"):
            raise _wrong(text, "has no path; use unix:/path/to/socket", setting)
        return ListenAddress(
            text=f"{_UNIX_PREFIX}{path}", path=Path(path), setting=setting
        )
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isascii() or not port.isdecimal():
        raise _wrong(text, "must have the form host:port or unix:/path", setting)
    if int(port) > 65535:  # noqa: PLR2004 - the largest port there is
        raise _wrong(text, "has a port over 65535", setting)
    if not _is_loopback(host):
        raise _wrong(
            text,
            "could be reached from other machines, and there is no encryption or "
            "authentication yet; use 127.0.0.1:PORT, [::1]:PORT or unix:/path",
            setting,
        )
    return ListenAddress(text=text, host=host, port=int(port), setting=setting)


@contextmanager
def private_socket(address: ListenAddress) -> Iterator[None]:
    """Prepare a unix socket for binding within the context; nothing for TCP.

    A socket that nobody listens on is removed; the new one is open to owner and group only.

    Raises:
        ConfigError: The path is in use, by a server or by something that is no socket.
    """
    if address.path is None:
        yield
        return
    _remove_stale(address)
    before = os.umask(_SOCKET_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _remove_stale(address: ListenAddress) -> None:
    path = address.path
    if path is None or not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise _wrong(
            address.text,
            "exists and is no socket; choose another path",
            address.setting,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise _wrong(address.text, "is in use by another server", address.setting)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wrong(text: str, problem: str, setting: str) -> ConfigError:
    return ConfigError([f"{setting} = {text!r} {problem}"])
