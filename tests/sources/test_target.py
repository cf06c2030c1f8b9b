"""Targets as people write them to `lbcore.connect`: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint, Locality
from lbcore.source import Consul, Dns, HttpSd, Kubernetes, Xds
from lbcore.sources.target import FileTarget, parse_target
from lbcore.sources.xds_bootstrap import bootstrap_fields


@pytest.mark.parametrize(
    ("target", "meaning"),
    [
        ("dns:///web.internal:80", Dns("web.internal", port=80)),
        ("dns:///_http._tcp.web.internal", Dns("_http._tcp.web.internal")),
        ("dns://10.0.0.53:53/web.internal:80", Dns("web.internal", port=80, resolvers=("10.0.0.53:53",))),
        ("dns:web.internal:80", Dns("web.internal", port=80)),
        ("dns://10.0.0.53/web.internal:80", Dns("web.internal", port=80, resolvers=("10.0.0.53:53",))),
        ("dns://[fd00::53]/web.internal:80", Dns("web.internal", port=80, resolvers=("[fd00::53]:53",))),
        ("dns://[fd00::53]:5353/web.internal:80", Dns("web.internal", port=80, resolvers=("[fd00::53]:5353",))),
        ("dns:///10.0.0.1:80", (Endpoint("10.0.0.1:80"),)),
        ("dns:///[::1]:80", (Endpoint("[::1]:80"),)),
        ("dns:///web.internal:80?dns_lookup_family=all&max_ttl=1m&min_ttl=500ms",
         Dns("web.internal", port=80, dns_lookup_family="all", max_ttl=60, min_ttl=0.5)),
        ("http://sd.internal/targets?env=prod", HttpSd("http://sd.internal/targets?env=prod")),
        ("https://sd.internal", HttpSd("https://sd.internal")),
        ("http_sd://sd.internal:8080/targets", HttpSd("http://sd.internal:8080/targets")),
        ("consul:///web", Consul("web")),
        ("consul://10.0.0.9:8500/web?datacenter=eu&stale=false",
         Consul("web", url="http://10.0.0.9:8500", datacenter="eu", stale=False)),
        ("kubernetes:///web", Kubernetes("web")),
        ("kubernetes:///web.prod:http", Kubernetes("web", namespace="prod", port="http")),
        ("kubernetes://10.0.0.9:6443/web.prod:8080?ca_file=/ca.pem",
         Kubernetes("web", namespace="prod", port="8080", url="https://10.0.0.9:6443", ca_file="/ca.pem")),
        ("xds://127.0.0.1:18000/web", Xds("127.0.0.1:18000", cluster="web")),
        ("xds://istiod.internal:15010/outbound%7C80%7C%7Cweb?api_type=grpc&cds=false",
         Xds("istiod.internal:15010", cluster="outbound|80||web", api_type="grpc", cds=False)),
        ("file:///etc/lbcore.yaml", FileTarget("/etc/lbcore.yaml")),
        ("file:///etc/lb%20core.yaml?service=web", FileTarget("/etc/lb core.yaml", "web")),
        ("ipv4:10.0.0.1:80,10.0.0.2:81", (Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:81"))),
        ("ipv6:[::1]:80,[::2]:80", (Endpoint("[::1]:80"), Endpoint("[::2]:80"))),
        ("unix:/run/web.sock", (Endpoint("unix:/run/web.sock"),)),
        ("unix:///run/web.sock", (Endpoint("unix:/run/web.sock"),)),
    ],
)  # fmt: skip
def test_a_target_and_its_meaning(target: str, meaning: object) -> None:
    assert parse_target(target) == meaning


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("", "unknown scheme ''; expected one of dns, http, "),
        ("web.internal", "unknown scheme 'web.internal'; expected one of dns, "),
        ("web.internal:80", "unknown scheme 'web.internal'"),
        ("dnss:///web.internal:80", "unknown scheme 'dnss'; did you mean dns?"),
        ("consul:web", "expected consul://AUTHORITY/NAME, of which the authority may be empty"),
        ("dns://web.internal:80", "expected a name after the authority, as in dns:///web.internal:80"),
        ("dns:///web.internal:http", "port: port 'http': expected a whole number, 1 to 65535"),
        ("dns:///web.internal:0", "port: port 0: expected a whole number, 1 to 65535"),
        ("dns:///web.internal:", "web.internal:: expected a port after the colon"),
        ("dns:///10.0.0.1", "name: name '10.0.0.1': expected a host name"),
        ("dns:///10.0.0.1:0", "address '10.0.0.1:0': expected a port from 1 to 65535"),
        ("dns:///10.0.0.1:80?max_ttl=1m", "10.0.0.1:80: expected no server to ask and no fields beside an IP address"),
        ("dns://resolver/web.internal:80", "resolvers"),
        ("dns:///web.internal:80?port=81", "port: given twice"),
        ("dns:///web.internal:80?ttl=1", "ttl: unknown field; did you mean"),
        ("dns:///web.internal:80?max_ttl=ages", "max_ttl: max_ttl 'ages': expected seconds as a number"),
        ("dns:///web.internal:80?min_ttl=600", "min_ttl 600: expected at most max_ttl 300"),
        ("dns:///web.internal:80?max_ttl", "bad query field"),
        ("dns:///web.internal:80#x", "expected no #"),
        ("dns://[::1/web.internal:80", "Invalid IPv6 URL"),
        ("http:///targets", "expected a URL such as http://"),
        ("http://me:pw@sd.internal/", "expected no user, password or fragment"),
        ("xds:///web", "bootstrap: expected xds://HOST:PORT/CLUSTER, or a bootstrap file in GRPC_XDS_BOOTSTRAP"),
        ("xds://istiod/web", "server: server 'istiod': expected"),
        ("etcd://10.0.0.1:99999/services/web", "url: member '10.0.0.1:99999': expected HOST or HOST:PORT"),
        ("etcds://10.0.0.1/services/web?colour=red", "url: unknown option 'colour'"),
        ("etcd://10.0.0.1", "expected a URL such as etcd://10.0.0.1:2379"),
        ("file://etc/lbcore.yaml", "expected file:///PATH?service=NAME"),
        ("file:///", "expected a name after the authority, as in file:///NAME"),
        ("file:///lb.yaml?name=web", "expected file:///PATH?service=NAME"),
        ("ipv4:", "address '': expected \"IP:PORT\""),
        ("ipv4:10.0.0.1:80,", "address '': expected \"IP:PORT\""),
        ("ipv4:10.0.0.1:80,10.0.0.1:80", "expected each address once"),
        ("ipv4:[::1]:80", "[::1]:80: expected an address of ipv4"),
        ("ipv6:10.0.0.1:80", "10.0.0.1:80: expected an address of ipv6"),
        ("ipv4:web.internal:80", "expected an IP address"),
        ("unix:run/web.sock", "expected an absolute path"),
    ],
)
def test_a_target_that_means_nothing_is_refused_with_the_reason(target: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(reason)) as caught:
        parse_target(target)
    assert str(caught.value).startswith(f"target {target!r}: ")


def test_a_password_in_a_target_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse_target("etcd://root:s3cret@10.0.0.1")
    assert "s3cret" not in str(caught.value)


@given(st.from_regex(r"(dns|consul|kubernetes|http|https|http_sd|file|ipv4|ipv6|unix):.*") | st.text())
def test_any_target_means_something_or_is_refused(target: str) -> None:
    with suppress(InvalidSetting):
        parse_target(target)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "bootstrap: "),
        ("{}", "bootstrap: Object missing required field `xds_servers`"),
        ('{"xds_servers": []}', "bootstrap: expected a server in xds_servers"),
        ('{"xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "tls"}]}]}', "ca_certificate_file"),
        ('{"xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "alts"}]}]}', "expected insecure or tls"),
        ('{"xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "tls", "config": 1}]}]}', "creds tls: "),
    ],
)
def test_a_bootstrap_that_cannot_be_used_is_told(content: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(reason)):
        bootstrap_fields({"GRPC_XDS_BOOTSTRAP_CONFIG": content})


def test_a_bootstrap_gives_the_first_credentials_that_can_be_used() -> None:
    files = '{"ca_certificate_file": "/ca", "certificate_file": "/cert", "private_key_file": "/key"}'
    creds = f'[{{"type": "google_default"}}, {{"type": "tls", "config": {files}}}, {{"type": "insecure"}}]'
    content = f'{{"xds_servers": [{{"server_uri": "a:1", "channel_creds": {creds}}}]}}'
    assert bootstrap_fields({"GRPC_XDS_BOOTSTRAP_CONFIG": content}) == [
        ("server", "a:1"),
        ("ca_file", "/ca"),
        ("cert_file", "/cert"),
        ("key_file", "/key"),
    ]


def test_a_bootstrap_says_where_the_client_is_and_whether_the_server_may_delete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = '{"server_uri": "a:1", "server_features": ["xds_v3", "ignore_resource_deletion"]}'
    node = '{"id": "me", "locality": {"region": "eu", "zone": "a"}, "metadata": {"nested": {"more": [1]}}}'
    content = f'{{"xds_servers": [{server}], "node": {node}}}'
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", content)
    assert parse_target("xds:///web") == Xds(
        "a:1", cluster="web", node_id="me", node_locality=Locality("eu", "a"), ignore_resource_deletion=True
    )


def test_a_bootstrap_gives_its_first_server_and_the_node() -> None:
    content = (
        '{"xds_servers": [{"server_uri": "dns:///a:1"}, {"server_uri": "b:1"}], "node": {"id": "me", "cluster": "c"}}'
    )
    assert bootstrap_fields({"GRPC_XDS_BOOTSTRAP_CONFIG": content}) == [
        ("server", "a:1"),
        ("node_id", "me"),
        ("node_cluster", "c"),
    ]
