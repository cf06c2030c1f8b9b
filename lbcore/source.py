"""Where the endpoints of a service may come from, beside a list of them: DNS, HTTP, Consul, Kubernetes, xDS, etcd.

Values, checked when they are made; `lbcore.sources` carries them out. A service has one of them in the configuration
file (`source: {dns: {name: web.internal, port: 80}}`), a program gives one to `lbcore.connect`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from lbcore.address import canonical_address, hostname, is_hostname
from lbcore.errors import InvalidSetting, Mistake
from lbcore.model import Locality, locality
from lbcore.schema import Checked, attempt
from lbcore.validation import Interval, Seconds, Whole, printable, refusal, visible_text

__all__ = [
    "Consul",
    "Dns",
    "Etcd",
    "HttpSd",
    "HttpSettings",
    "Kubernetes",
    "Source",
    "SourceSettings",
    "Xds",
    "without_login",
]

WarningHealth = Literal["healthy", "degraded", "unhealthy"]
LookupFamily = Literal["auto", "v4_only", "v6_only", "v4_preferred", "all"]


def http_url(value: object, field: str) -> str:
    """An absolute URL of http or https with a host, and no user, password or fragment in it."""
    url = visible_text(value, field)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refusal(field, url, "expected a URL such as http://127.0.0.1:8500") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not url.isascii() or " " in url:
        raise refusal(field, url, "expected a URL such as http://127.0.0.1:8500")
    if parts.username is not None or parts.fragment:
        raise refusal(field, url, "expected no user, password or fragment in it; a token goes into token_file")
    return url


def etcd_url(value: object, field: str) -> str:
    """A URL of etcd or etcds with members and a path."""
    url = visible_text(value, field)
    scheme, separator, rest = url.partition("://")
    members, _, path = rest.partition("?")[0].partition("/")
    if scheme not in ("etcd", "etcds") or not separator or not members or not path.strip("/"):
        shown = without_login(url)
        raise refusal(field, shown, "expected a URL such as etcd://10.0.0.1:2379,10.0.0.2:2379/services/web")
    return url


def without_login(text: str) -> str:
    """The same without the name and password that the URL of an etcd may have."""
    return re.sub(r"\b(etcds?://)[^/?]*@", r"\1", text)


def resolvers(value: object, field: str) -> tuple[str, ...]:
    """A sequence of `IP:PORT`."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise refusal(field, value, "expected a list of IP:PORT")
    mistakes: list[Mistake] = []
    for index, item in enumerate(value):
        wrong: list[Mistake] = []
        address = attempt(canonical_address, item, "resolver", wrong)
        if not wrong and (address.startswith("unix:") or is_hostname(address)):
            wrong += refusal("resolver", item, "expected IP:PORT").mistakes
        mistakes += (Mistake((field, index), each.what) for each in wrong)
    if mistakes:
        raise InvalidSetting(*mistakes)
    return tuple(map(canonical_address, value))


def texts(value: object, field: str) -> Mapping[str, str]:
    """A mapping of text to text."""
    if not isinstance(value, Mapping):
        raise refusal(field, value, "expected a mapping of names to text")
    wrong = [
        Mistake((field, str(key)), f"{key} {part!r:.120}: expected text")
        for key, part in value.items()
        if not isinstance(key, str) or not isinstance(part, str)
    ]
    if wrong:
        raise InvalidSetting(*wrong)
    return dict(value)


def port_name(value: object, field: str) -> str:
    """The number of a port, or its name, as text."""
    name = str(value) if type(value) is int else printable(value, field)
    if name.isascii() and name.isdigit() and not 1 <= int(name[:6]) <= 65535:
        raise refusal(field, value, "expected a port from 1 to 65535, or the name of one")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings(Checked):
    """What all kinds of sources have in common.

    Fields:
        initial_fetch_timeout: seconds from the start that answers are held back for this source at most; 0 is for as
            long as it takes. Source: Envoy ConfigSource.initial_fetch_timeout.
    """

    initial_fetch_timeout: Annotated[float, Seconds(0.0)] = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings(SourceSettings):
    """What sources that speak HTTP have in common.

    Fields:
        timeout: seconds for one request, less the time that it asks the server to hold it.
        token_file: a file whose content is sent as a bearer token; read again for each request.
        ca_file: certificates that vouch for the server, in PEM; empty: those of the system.
    """

    timeout: Interval = 10.0
    token_file: Annotated[str, printable] = ""
    ca_file: Annotated[str, printable] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns(SourceSettings):
    """The addresses of a name, asked for again as their TTL ends.

    Fields:
        name: a host name; with `port` unset one that has SRV records, such as `_http._tcp.web.internal`.
        port: of every address. None: SRV records say it, and weights and priorities too.
        dns_lookup_family: `auto` takes IPv6 addresses and only without any IPv4 ones, `v4_preferred` the other way
            round, `all` both.
        resolvers: servers to ask, `IP:PORT`; without any those of /etc/resolv.conf, and its search list.
        min_ttl, max_ttl: bounds in seconds of the time for which an answer is used.
        timeout: seconds for an answer, all servers and retries included.

    Source: Envoy's DNS cluster (extensions/clusters/dns/v3); SRV: RFC 2782.
    """

    name: Annotated[str, hostname] = field(kw_only=False)
    port: Annotated[int, Whole(1, 65535)] | None = None
    dns_lookup_family: LookupFamily = "auto"
    resolvers: Annotated[Sequence[str], resolvers] = ()
    min_ttl: Interval = 5.0
    max_ttl: Interval = 300.0
    timeout: Interval = 5.0

    def contradictions(self) -> Iterator[Mistake]:
        if self.min_ttl > self.max_ttl:
            yield Mistake(("min_ttl",), f"min_ttl {self.min_ttl:g}: expected at most max_ttl {self.max_ttl:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSd(HttpSettings):
    """A JSON list of targets as Prometheus reads it: `[{"targets": ["10.0.0.1:80"], "labels": {…}}]`.

    Fields:
        url: asked every `refresh_interval` seconds.
        labels: only targets that have all of these labels.

    Source: Prometheus http_sd_config.
    """

    url: Annotated[str, http_url] = field(kw_only=False)
    refresh_interval: Interval = 60.0
    labels: Annotated[Mapping[str, str], texts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consul(HttpSettings):
    """The instances of a Consul service, with their health.

    Fields:
        service: its name in Consul.
        url: of an agent.
        datacenter: empty: the agent's own.
        tag: only instances that have it; empty: all.
        port: the name of one of their ports (Consul 1.22); empty: their default one.
        stale: any server may answer, not the leader alone.
        warning: what an instance with a warning is.
        wait: seconds that the agent holds a request while nothing changes.

    Source: Consul's HTTP API, /v1/health/service/:service and blocking queries.
    """

    service: Annotated[str, visible_text] = field(kw_only=False)
    url: Annotated[str, http_url] = "http://127.0.0.1:8500"
    datacenter: Annotated[str, printable] = ""
    tag: Annotated[str, printable] = ""
    port: Annotated[str, printable] = ""
    stale: bool = True
    warning: WarningHealth = "degraded"
    wait: Annotated[float, Seconds(1.0)] = 300.0

    def contradictions(self) -> Iterator[Mistake]:
        if self.wait > 600:
            yield Mistake(("wait",), f"wait {self.wait:g}: expected at most 600 seconds, which is Consul's limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes(HttpSettings):
    """The endpoints of a Kubernetes Service, from its EndpointSlices.

    Fields:
        service: its name.
        namespace: empty: the pod's own, or `default` outside of a cluster.
        port: a port's name or number; empty: the only one that there is.
        url: of the API server; empty: the cluster's that this process runs in, with its service account's token and CA.

    Source: Kubernetes API, discovery.k8s.io/v1 EndpointSlice.
    """

    service: Annotated[str, visible_text] = field(kw_only=False)
    namespace: Annotated[str, printable] = ""
    port: Annotated[str, port_name] = ""
    url: Annotated[str, http_url] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Xds(SourceSettings):
    """The endpoints of a cluster, from a control plane that speaks xDS v3 (Istio, go-control-plane, lbcore itself).

    Fields:
        server: `HOST:PORT` of the ADS service.
        cluster: its name there; empty: the name of the service.
        api_type: `grpc` is the state of the world, `delta_grpc` is incremental.
        cds: learn from CDS, by wildcard as Envoy does, whether the cluster exists and where its endpoints are; without
            it EDS alone is asked, for the cluster's name.
        node_id, node_cluster: what this process calls itself.
        node_metadata: more of that; some control planes choose by it what they send.
        node_locality: where this process is; some control planes send the nearest endpoints first.
        ignore_resource_deletion: a cluster that CDS no longer has keeps its endpoints, and is in doubt (gRFC A53).
        ca_file: speak TLS, and trust these certificates in PEM; empty: plain text.
        cert_file, key_file: this client's own certificate and key, in PEM, for control planes that want one. All files
            are read again for each connection.
        server_name: what the server's certificate is to be for, where that is not the host of `server`.

    Source: Envoy xds_protocol.rst, ApiConfigSource.
    """

    server: Annotated[str, canonical_address] = field(kw_only=False)
    cluster: Annotated[str, printable] = ""
    api_type: Literal["grpc", "delta_grpc"] = "delta_grpc"
    cds: bool = True
    node_id: Annotated[str, printable] = "lbcore"
    node_cluster: Annotated[str, printable] = ""
    node_metadata: Annotated[Mapping[str, str], texts] = field(default_factory=dict)
    node_locality: Annotated[Locality, locality] = field(default_factory=Locality)
    ignore_resource_deletion: bool = False
    ca_file: Annotated[str, printable] = ""
    cert_file: Annotated[str, printable] = ""
    key_file: Annotated[str, printable] = ""
    server_name: Annotated[str, printable] = ""

    def contradictions(self) -> Iterator[Mistake]:
        if bool(self.cert_file) != bool(self.key_file):
            yield Mistake(("cert_file",), "cert_file: expected cert_file and key_file together")
        for name in ("cert_file", "server_name"):
            if getattr(self, name) and not self.ca_file:
                yield Mistake((name,), f"{name}: expected ca_file beside it, without which nothing is encrypted")


@dataclass(frozen=True, slots=True)
class Etcd(SourceSettings):
    """The endpoints in etcd in the layout of gRPC naming: below the URL's path a key each, with `{"Addr": "…"}`.

    Fields:
        url: `etcd://HOST:PORT,…/PATH`, or `etcds://` over TLS; see `lbcore.etcd.address`.

    Source: etcd client/v3/naming/endpoints.
    """

    url: Annotated[str, etcd_url]


Source = Dns | HttpSd | Consul | Kubernetes | Xds | Etcd
