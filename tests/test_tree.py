"""Rules of the tree that a program can check: which way imports point, how long files are, what may not be in them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

ROOT = Path(__file__).parents[1]
PLACES = ("lbcore", "src_ext", "tests", "bench", "examples", "docs", ".ci")
CODE = (".py", ".pyx", ".pxi", ".pxd", ".pyi")
TEXT = (*CODE, ".md", ".toml", ".yaml", ".txt", ".proto", ".in", "")
LONGEST = 500  # lines

# Each part of lbcore in its layer, lowest first. A module imports from layers below its own and from its own part.
# In the layers of values and of the engine the modules of one layer also know each other.
LAYERS = (
    ("errors", "validation", "address", "schema", "event_log", "waiting"),
    (
        "model",
        "settings",
        "policy",
        "fault",
        "retry",
        "delivery",
        "access",
        "source",
        "stats",
        "explanation",
        "regex_rewrite",
    ),
    ("_core",),
    ("picker", "subset", "subsetting", "handle", "outlier_events", "cluster", "request", "request_hash"),
    ("routing", "snapshot"),
    ("membership", "loads", "registration", "findings", "board"),
    ("etcd",),
    ("directory",),
    ("config",),
    ("orca",),
    ("service.proto",),
    ("service.wire",),  # messages to values and back, for the service and its clients
    ("service.registry_wire",),
    ("health", "sources", "registry", "xds", "client", "resilience", "simulation", "integrations"),
    ("service",),
    ("cli",),
    ("__main__",),
)
KNOW_EACH_OTHER = (0, 1, 3, 4)
EMBEDDED = 3  # the last layer that a program gets by `import lbcore`
EMBEDDED_LIBRARIES = {"msgspec", "numpy"}

# Words that say nothing of what a thing is.
EMPTY_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "data", "info"}


def layer_and_part(module: str) -> tuple[int, str]:
    """Where a module below `lbcore` stands; its longest known prefix decides."""
    places = [
        (len(part), layer, part)
        for layer, parts in enumerate(LAYERS)
        for part in parts
        if module == part or module.startswith(f"{part}.")
    ]
    assert places, f"lbcore.{module} has no place among LAYERS: enter it where it belongs"
    _, layer, part = max(places)
    return layer, part


def modules() -> list[Path]:
    everything = sorted((ROOT / "lbcore").rglob("*.py"))
    return [path for path in everything if path != ROOT / "lbcore" / "__init__.py"]


def name_below_lbcore(path: Path) -> str:
    parts = path.relative_to(ROOT / "lbcore").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, also inside functions and for type checkers alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_imports_point_down(path: Path) -> None:
    layer, part = layer_and_part(name_below_lbcore(path))
    for name in imported(path):
        if not name.startswith("lbcore."):
            continue
        below = name.removeprefix("lbcore.")
        if "." not in below and not (ROOT / "lbcore" / below).exists() and not list(ROOT.glob(f"lbcore/{below}.py*")):
            raise AssertionError(f"{name}: import it from the module that defines it, not from lbcore itself")
        target_layer, target_part = layer_and_part(below)
        same = target_part == part or (target_layer == layer and layer in KNOW_EACH_OTHER)
        assert target_layer < layer or same, f"{part} may not import {name}"


def test_what_is_embedded_needs_few_libraries() -> None:
    allowed = set(sys.stdlib_module_names) | EMBEDDED_LIBRARIES | {"lbcore"}
    embedded = [path for path in modules() if layer_and_part(name_below_lbcore(path))[0] <= EMBEDDED]
    roots = {relative(path): {name.partition(".")[0] for name in imported(path)} for path in embedded}
    assert {name: used - allowed for name, used in roots.items() if used - allowed} == {}


def files(*suffixes: str) -> list[Path]:
    """Files of the project with such names; nothing built or generated."""
    inside = [path for place in PLACES for path in sorted((ROOT / place).rglob("*"))]
    return [
        path
        for path in [*inside, *sorted(ROOT.glob("[!.]*"))]
        if path.suffix in suffixes and path.is_file() and "_pb2" not in path.name and "__pycache__" not in path.parts
    ]


def test_the_top_level_holds_what_belongs_there() -> None:
    built = {"build", "dist"}
    parts = {"lbcore", "src_ext", "tests", "bench", "examples", "deploy", "docs"}
    named = {"pyproject.toml", "setup.py", "README.md", "CHANGELOG.md", "Makefile", "MANIFEST.in", "constraints.txt"}
    found = {path.name for path in ROOT.glob("[!.]*") if path.suffix != ".egg-info"}
    assert found - built - parts - named == set()


def test_no_file_is_too_long_to_read() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in files(*CODE)}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_file_is_named_by_an_empty_word() -> None:
    words = {relative(path): set(re.split(r"[/._-]", relative(path))) for path in files(*TEXT)}
    assert [path for path, named in words.items() if named & EMPTY_WORDS] == []


def test_no_class_is_named_by_an_empty_word() -> None:
    classes = [
        f"{relative(path)}: {node.name}"
        for path in files(".py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and {word.lower() for word in re.findall(r"[A-Z][a-z]*", node.name)} & EMPTY_WORDS
    ]
    assert classes == []


FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/"),
    "a package registry's host": re.compile(r"pypi[.]org|pythonhosted[.]"),
    "work left for later": re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    assert [
        f"{relative(path)}:{number}"
        for path in files(*TEXT)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if FORBIDDEN[what].search(line)
    ] == []


def test_time_limits_lose_no_cancellation() -> None:
    """Before Python 3.12 `asyncio.wait_for` loses one that meets a result: a task that is to end goes on for ever."""
    assert [relative(path) for path in modules() if "asyncio.wait_for(" in path.read_text()] == []


def test_values_say_which_fields_have_names_in_a_way_that_every_python_reads() -> None:
    """Python 3.10 cannot read annotations with `_: KW_ONLY` among them, and the schema reads those of every value."""
    assert [relative(path) for path in modules() if re.search(r"\bKW_ONLY$", path.read_text(), re.MULTILINE)] == []


def test_every_file_opens_by_saying_what_it_is() -> None:
    trees = {relative(path): ast.parse(path.read_text()) for path in files(".py")}
    assert [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def pyproject() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())  # type: ignore[no-any-return]


def distribution(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


def test_the_build_group_holds_what_the_build_system_requires() -> None:
    settings = pyproject()
    assert set(settings["build-system"]["requires"]) <= set(settings["dependency-groups"]["build"])


def test_every_direct_dependency_is_pinned() -> None:
    settings = pyproject()
    direct = [
        *settings["project"]["dependencies"],
        *(each for extra in settings["project"]["optional-dependencies"].values() for each in extra),  # type: ignore[attr-defined]
        *(requirement for group in settings["dependency-groups"].values() for requirement in group),
    ]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {distribution(line) for line in pins if line and not line.startswith("#")}
    assert {distribution(requirement) for requirement in direct} - pinned == set()
