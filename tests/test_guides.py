"""The programs in the guides run, against backends in place of the addresses that they name."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lbcore.config import parse
from tests.harness.unreliable import UnreliableBackends

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = ("health.md", "resilience.md")


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / guide).read_text(), re.DOTALL)


PROGRAMS = [
    pytest.param(block, id=f"{guide}-{number}")
    for guide in GUIDES
    for number, block in enumerate(blocks(guide, "python"))
]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_program_runs(program: str) -> None:
    async with UnreliableBackends(2) as backends:
        for written, real in zip(["10.0.0.1:80", "10.0.0.2:80"], backends.addresses, strict=True):
            program = program.replace(written, real)
        command = [sys.executable, "-c", program]
        ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_configuration_decodes(guide: str) -> None:
    for block in blocks(guide, "yaml"):
        assert parse(block, guide).services
