"""Where an etcd is, written as a URL: `etcd://[USER:PASSWORD@]HOST[:PORT],.../PREFIX`, or `etcds://` over TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from lbcore.errors import InvalidSetting

__all__ = ["EtcdAddress"]

_PORT = 2379
_FILES = ("ca_file", "cert_file", "key_file", "password_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAddress:
    """Members of one cluster, and how to talk to them.

    Fields:
        members: `HOST:PORT` each; the first that answers is used.
        prefix: of every key, without a slash at the end.
        user, password: for etcd's own authentication; without a user it is not asked for. The password may be in
            `password_file` instead.
        tls: whether to use TLS; the members' certificates are checked against `ca_file`, or the system's authorities.
        cert_file, key_file: this client's own certificate.
    """

    members: tuple[str, ...]
    prefix: str = ""
    user: str = ""
    password: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @classmethod
    def parse(cls, url: str, field: str = "etcd") -> EtcdAddress:
        """Reads a URL. Raises `InvalidSetting` naming `field`.

        >>> EtcdAddress.parse("etcds://ann@10.0.0.1,[::1]:23790/lbcore/v1?ca_file=/ca.pem").members
        ('10.0.0.1:2379', '[::1]:23790')
        """
        scheme, separator, rest = url.partition("://")
        if scheme not in ("etcd", "etcds") or not separator:
            raise InvalidSetting(f"{field} {url!r}: expected etcd://HOST:PORT,.../PREFIX, or etcds:// over TLS")
        place, _, query = rest.partition("?")
        authority, _, prefix = place.partition("/")
        login, _, hosts = authority.rpartition("@")
        user, _, password = login.partition(":")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := options.keys() - set(_FILES):
            raise InvalidSetting(f"{field}: unknown option {min(unknown)!r}, expected one of {', '.join(_FILES)}")
        if bool(options.get("cert_file")) != bool(options.get("key_file")):
            raise InvalidSetting(f"{field}: expected cert_file and key_file together")
        return cls(
            members=tuple(_member(each, field) for each in hosts.split(",")),
            prefix="/" + unquote(prefix).strip("/") if prefix.strip("/") else "",
            user=unquote(user),
            password=unquote(password),
            tls=scheme == "etcds",
            **options,
        )

    def secret(self) -> str:
        """The password. Raises `InvalidSetting` where its file cannot be read."""
        return _read(self.password_file).decode().strip() if self.password_file else self.password

    def certificates(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, private key and certificate, each None where none is named. Raises `InvalidSetting`."""
        return (
            _read(self.ca_file) if self.ca_file else None,
            _read(self.key_file) if self.key_file else None,
            _read(self.cert_file) if self.cert_file else None,
        )

    def __str__(self) -> str:
        return f"{'etcds' if self.tls else 'etcd'}://{','.join(self.members)}{self.prefix}"


def _member(host: str, field: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(_PORT)
    if not name or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise InvalidSetting(f"{field}: member {host!r}: expected HOST or HOST:PORT")
    return f"{name}:{port}"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as wrong:
        raise InvalidSetting(f"{path}: {wrong.strerror}") from None
