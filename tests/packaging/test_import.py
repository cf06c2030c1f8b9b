"""`import lbcore` costs a program that only embeds it nothing of the service's libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
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


def test_what_is_embedded_needs_no_more_than_a_plain_install() -> None:
    program = "import lbcore, lbcore.health, lbcore.health.prober, lbcore.resilience, sys\n"
    program += "for name, module in sys.modules.items(): print(name.partition('.')[0], getattr(module, '__file__', ''))"
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=-1, text=True, check=True)
    modules = [line.split(" ", 1) for line in ended.stdout.splitlines()]
    loaded = {name for name, file in modules if "site-packages" in file and not name.startswith("_")}
    plain = [each for each in metadata.requires("lbcore") or () if "extra ==" not in each]
    assert loaded <= {re.split(r"[^\w-]", each)[0].replace("-", "_") for each in plain}
