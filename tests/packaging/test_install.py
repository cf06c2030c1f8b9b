"""`pip install`, plain and editable, into fresh environments; sdist and wheel; native modules compiled against it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCES = ("lbcore", "src_ext", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md")
USE_DOWNSTREAM = """
import downstream
from lbcore import Cluster, Endpoint, Maglev

cluster = Cluster("web", [Endpoint(f"10.0.0.{number}:80") for number in range(10)], policy=Maglev())
for key in range(1000):
    member, active = downstream.pick_by_hash(cluster, key)
    assert cluster.endpoints[member] is cluster.pick(key), key
    assert active == 1, key
assert cluster.stats().active == 0
print("agreed")
"""
BUILT = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def fresh_tree(place: Path) -> Path:
    """A copy of the sources without anything built."""
    tree = place / "lbcore-tree"
    tree.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=BUILT)
        else:
            shutil.copy(source, tree)
    return tree


@dataclass(frozen=True)
class Installation:
    """An environment of its own that has lbcore and no more than lbcore asks for."""

    python: Path
    folder: Path  # an empty folder to work in, so that nothing is imported from the tree by accident


def install(place: Path, *how: str | Path) -> Installation:
    environment = place / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=place)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *how, cwd=place)
    folder = place / "elsewhere"
    folder.mkdir()
    return Installation(python, folder)


@pytest.fixture(scope="module", params=["plain", "editable"])
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    place: Path = tmp_path_factory.mktemp(request.param)
    tree = fresh_tree(place)
    return install(place, tree) if request.param == "plain" else install(place, "-e", tree)


def test_an_installed_lbcore_picks(installation: Installation) -> None:
    program = "import lbcore; print(lbcore.Cluster('web', [lbcore.Endpoint('10.0.0.1:80')]).pick().address)"
    assert run(installation.python, "-c", program, cwd=installation.folder).strip() == "10.0.0.1:80"


def test_a_downstream_module_compiles_against_lbcore_and_picks_natively(installation: Installation) -> None:
    pip = (sys.executable, "-m", "pip", "--python", installation.python, "install", "-c", ROOT / "constraints.txt")
    run(*pip, "cython", "setuptools", cwd=installation.folder)
    shutil.copy(HERE / "downstream.pyx", installation.folder)
    run(installation.python, "-m", "Cython.Build.Cythonize", "-i", "downstream.pyx", cwd=installation.folder)
    assert run(installation.python, "-c", USE_DOWNSTREAM, cwd=installation.folder).strip() == "agreed"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel built from that sdist."""
    place: Path = tmp_path_factory.mktemp("distributions")
    run(sys.executable, "-m", "build", "--outdir", place, cwd=fresh_tree(place))
    return place


def test_the_sdist_holds_sources_and_nothing_generated(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "src_ext/_core.pyx", "lbcore/_core.pxd", "lbcore/cluster.py"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "src_ext").glob("*.p*")} <= names
    assert not [name for name in names if name.endswith((".c", ".so"))]


def test_the_wheel_from_the_sdist_holds_the_package_with_its_types_and_declarations(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("__init__.py", "__init__.pxd", "_core.pxd", "_core.pyi", "py.typed"):
        assert f"lbcore/{name}" in names
    assert [name for name in names if name.startswith("lbcore/_core.") and name.endswith(".so")]
    assert not [name for name in names if not name.startswith(("lbcore/", "lbcore-"))]


def test_the_wheel_from_the_sdist_works(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    installed = install(tmp_path, wheel)
    program = "import lbcore; print(lbcore.hash64('a'))"
    assert int(run(installed.python, "-c", program, cwd=installed.folder)) == 15154266338359012955
