"""`import lbcore` costs a program that only embeds it nothing of the service's libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SERVICE_LIBRARIES = (
    "aetcd",
    "grpc",
    "google.protobuf",
    "aiohttp",
    "yaml",
    "prometheus_client",
    "uvloop",
    "watchfiles",
    "envoy",
    "dns",
)


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """What `import lbcore` loads in a fresh interpreter."""
    program = "import lbcore, sys; print(*sys.modules)"
    root = Path(__file__).parents[2]
    return set(
        subprocess.run([sys.executable, "-c", program], cwd=root, stdout=-1, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("library", SERVICE_LIBRARIES)
def test_import_lbcore_loads_no_library_of_the_service(library: str, imported: set[str]) -> None:
    assert library not in imported


def test_import_lbcore_loads_no_part_of_the_service(imported: set[str]) -> None:
    service = (
        "lbcore.service",
        "lbcore.xds",
        "lbcore.sources",
        "lbcore.etcd",
        "lbcore.registry",
        "lbcore.config",
        "lbcore.cli",
        "lbcore.client",
    )
    assert not [name for name in imported if name.startswith(service)]


@pytest.mark.parametrize("part", ["lbcore.health", "lbcore.resilience"])
def test_what_is_embedded_beside_it_loads_them_no_sooner_than_they_are_used(part: str) -> None:
    program = f"import {part}, sys; print(*sys.modules)"
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=-1, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert loaded & set(SERVICE_LIBRARIES) == set()
