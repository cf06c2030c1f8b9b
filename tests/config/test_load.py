"""Files on disk: what cannot be read is a `ConfigError` as well, and what is large takes no age."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lbcore.config import load
from lbcore.errors import ConfigError, LbError


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    (mistake,) = caught.value.mistakes
    return mistake


def test_a_file_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "lb.yaml"
    file.write_text("services: {wéb: {}}", encoding="utf-8")
    assert [service.name for service in load(file).services] == ["wéb"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "lb.yaml") == f"{tmp_path}/lb.yaml: No such file or directory"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: Is a directory"


def test_a_path_that_no_file_can_have_is_refused() -> None:
    assert refused(Path("a\0b")).startswith("a\0b: ")


def test_a_name_in_bytes_that_are_no_utf_8_can_be_shown(tmp_path: Path) -> None:
    assert refused(tmp_path / "\udcff.yaml") == f"{tmp_path}/\\udcff.yaml: No such file or directory"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"services:\n  \xff: {}", ":2: byte 0xff: expected UTF-8"),
        ("services: {wéb: {}}".encode("latin-1"), ":1: byte 0xe9: expected UTF-8"),
        ("services: {}".encode("utf-16"), ":1: byte 0xff: expected UTF-8"),
        (b"services: {}\n\xed\xa0\x80", ":2: byte 0xed: expected UTF-8"),
        (b"services: {}\0", ":1: character '\\x00': YAML allows none such; write it as an escape in double quotes"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "lb.yaml"
    file.write_bytes(content)
    assert refused(file) == f"{file}{expected}"


def test_a_mistake_begins_with_the_path_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lb.yaml").write_text("services: 3")
    monkeypatch.chdir(tmp_path)
    assert refused(Path("lb.yaml")).startswith("lb.yaml:1: services: ")


def test_a_hundred_thousand_endpoints(tmp_path: Path) -> None:
    file = tmp_path / "lb.yaml"
    lines = (
        f'      - {{address: "10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80", weight: {n % 9 + 1}, locality: eu/z{n % 3}}}\n'
        for n in range(100_000)
    )
    file.write_text("services:\n  web:\n    endpoints:\n" + "".join(lines))
    (web,) = load(file).services
    assert (len(web.endpoints), web.endpoints[-1].address) == (100_000, "10.1.134.159:80")


def test_a_hundred_thousand_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "lb.yaml"
    file.write_text("services:\n  web:\n    endpoints:\n" + "      - 10.0.0.1:0\n" * 100_000)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert len(caught.value.mistakes) == 100_000
    assert caught.value.mistakes[-1].startswith(f"{file}:100003: services.web.endpoints[99999].address: ")


def test_the_error_is_a_value_error_of_lbcore_and_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, LbError)
    assert isinstance(again, ValueError)
    assert (again.mistakes, str(again)) == (caught.value.mistakes, str(caught.value))
