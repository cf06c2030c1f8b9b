"""What is wrong in a service's source is said as any other mistake is: field, value and what is expected."""

from __future__ import annotations

import pytest

from tests.config.test_mistakes import of_service


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("source: dns", "source: name is missing"),
        ("source: {dnss: {}}", "source: unknown name 'dnss'; did you mean dns?"),
        ("source: {dns: {port: 80}}", "source.dns: name is missing"),
        ("source: {dns: {name: 10.0.0.1}}", "source.dns.name: name '10.0.0.1': expected a host name"),
        ("source: {dns: {name: web.internal, port: http}}", "source.dns.port: port 'http': expected a whole number"),
        ("source: {dns: {name: a, ttl: 1}}", "source.dns.ttl: unknown field"),
        ("source: {dns: {name: a, resolvers: 10.0.0.1:53}}", "source.dns.resolvers: expected a list"),
        (
            "source: {dns: {name: a, resolvers: [10.0.0.1]}}",
            "source.dns.resolvers[0]: resolver '10.0.0.1': expected \"IP:PORT\"",
        ),
        (
            "source: {dns: {name: a, min_ttl: 1h}}",
            "source.dns.min_ttl: min_ttl 3600: expected at most max_ttl 300",
        ),
        (
            "source: {consul: {service: a, warning: odd}}",
            "source.consul.warning: warning 'odd': expected one of healthy",
        ),
        ("source: {consul: {service: a, wait: 1h}}", "source.consul.wait: wait 3600: expected at most 600 seconds"),
        (
            "source: {kubernetes: {service: a, port: 70000}}",
            "source.kubernetes.port: port '70000': expected a port from 1 to 65535, or the name of one",
        ),
        ("source: {kubernetes: {service: a, url: a}}", "source.kubernetes.url: url 'a': expected a URL such as"),
        ("source: {http_sd: sd.internal}", "source.http_sd.url: url 'sd.internal': expected a URL such as http://"),
        (
            "source: {http_sd: {url: 'http://a/', labels: {env: 1}}}",
            "source.http_sd.labels.env: env 1: expected text",
        ),
        (
            "source: {etcd: {url: 'etcd://h:99999/x'}}",
            "source.etcd.url: url: member 'h:99999': expected HOST or HOST:PORT",
        ),
        ("source: {etcd: {url: 'etcd://h,/x'}}", "source.etcd.url: url: member '': expected HOST or HOST:PORT"),
        ("source: {etcd: {url: 'etcds://h/x?colour=red'}}", "source.etcd.url: url: unknown option 'colour'"),
        ("source: {etcd: {url: 'etcd://me:s3cret@h'}}", "source.etcd.url: url 'etcd://h': expected a URL such as"),
        (
            "source: {xds: {server: 'a:1', node_locality: a/b/c/d}}",
            "source.xds.node_locality: node_locality 'a/b/c/d': ",
        ),
        ("source: {dns: a}, endpoints: []", "source: expected endpoints or a source of them, found both (see line 1)"),
    ],
)
def test_a_mistake_in_a_source(settings: str, expected: str) -> None:
    assert of_service(settings).startswith(expected)
