"""The command line as people and scripts meet it: real processes, their output, their exit codes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbcore import hash64
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until
from tests.harness.service import LBCORE, ROOT, LbcoreService, lbcore, web_with

Start = Callable[[str], LbcoreService]

ADDRESSES = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"]
WEB = web_with(*ADDRESSES, policy="ring_hash")
BAD = """\
services:
  web:
    policy: ring_hsh
    endpoints:
      - {address: "127.0.0.1:8081", weight: 0}
      - 127.0.0.1:99999
    colour: blue
"""
MISTAKES = {
    3: "services.web.policy: ",
    5: "services.web.endpoints[0].weight: ",
    6: "services.web.endpoints[1].address: ",
    7: "services.web.colour: ",
}


def written(folder: Path, text: str) -> Path:
    path = folder / "given.yaml"
    path.write_text(text)
    return path


def assert_all_mistakes_told(lines: list[str], file: Path) -> None:
    assert len(lines) == len(MISTAKES)
    for line, (number, field) in zip(lines, MISTAKES.items(), strict=True):
        assert line.startswith(f"{file}:{number}: {field}")


# serve


def test_serve_prints_one_ready_line_and_logs_elsewhere(start_service: Start) -> None:
    service = start_service(WEB)
    service.replace("services: [")
    service.process.wait_for_output("not YAML", stream="stderr")
    service.end()
    assert service.process.stdout == f"ready grpc={service.grpc} admin={service.admin}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serve_with_exit_code_0(start_service: Start, number: int) -> None:
    assert start_service(WEB).end(number) == 0


def test_serve_takes_an_empty_directory(start_service: Start) -> None:
    service = start_service("services: {}")
    assert service.get("/ready").status == 200
    assert lbcore("endpoints", "--server", service.grpc).code == 0


def test_serve_refuses_a_bad_configuration_with_every_mistake(tmp_path: Path) -> None:
    config = written(tmp_path, BAD)
    ended = lbcore("serve", config, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert (ended.code, ended.stdout) == (2, "")
    assert_all_mistakes_told(ended.stderr.splitlines(), config)


def test_serve_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = lbcore("serve", tmp_path / "none.yaml", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == f"{tmp_path}/none.yaml: No such file or directory\n"


@pytest.mark.parametrize("taken", ["grpc", "admin"])
def test_serve_names_an_address_that_is_in_use(start_service: Start, taken: str) -> None:
    first = start_service(WEB)
    addresses = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", taken: getattr(first, taken)}
    ended = lbcore("serve", first.config, "--grpc", addresses["grpc"], "--admin", addresses["admin"])
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1] == f"lbcore: cannot listen on {addresses[taken]}: Address already in use"
    assert "Traceback" not in ended.stderr


def test_serve_refuses_what_is_no_address(tmp_path: Path) -> None:
    ended = lbcore("serve", written(tmp_path, WEB), "--grpc", "127.0.0.1:99999")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lbcore: --grpc '127.0.0.1:99999': expected HOST:PORT")


# check


def test_check_accepts_a_good_file(tmp_path: Path) -> None:
    config = written(tmp_path, WEB)
    assert lbcore("check", config) == (0, f"{config}: good, services: 1, endpoints: 3\n", "")


def test_check_counts_in_json(tmp_path: Path) -> None:
    ended = lbcore("check", written(tmp_path, WEB), "--json")
    assert (ended.code, json.loads(ended.stdout)) == (0, {"ok": True, "services": 1, "endpoints": 3})


def test_check_tells_every_mistake_with_file_line_and_field(tmp_path: Path) -> None:
    config = written(tmp_path, BAD)
    ended = lbcore("check", config)
    assert (ended.code, ended.stdout) == (2, "")
    assert_all_mistakes_told(ended.stderr.splitlines(), config)


def test_check_tells_every_mistake_in_json(tmp_path: Path) -> None:
    config = written(tmp_path, BAD)
    ended = lbcore("check", config, "--json")
    told = json.loads(ended.stdout)
    assert (ended.code, ended.stderr, told["ok"]) == (2, "", False)
    assert_all_mistakes_told(told["mistakes"], config)


# pick


def picked(service: LbcoreService, *arguments: str) -> list[str]:
    ended = lbcore("pick", "web", *arguments, "--server", service.grpc)
    assert (ended.code, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_pick_prints_one_endpoint_of_the_service(start_service: Start) -> None:
    (address,) = picked(start_service(WEB))
    assert address in ADDRESSES


def test_pick_of_a_key_is_the_same_each_time_and_the_first_of_its_ranks(start_service: Start) -> None:
    service = start_service(WEB)
    first, again = picked(service, "--key", "user-17"), picked(service, "--key", "user-17")
    ranks = picked(service, "--key", "user-17", "-n", "3")
    assert first == again == ranks[:1]


def test_pick_of_a_key_ranks_different_endpoints(start_service: Start) -> None:
    service = start_service(WEB)
    assert len(set(picked(service, "--key", "user-17", "-n", "2"))) == 2
    assert sorted(picked(service, "--key", "user-17", "-n", "9")) == ADDRESSES


def test_pick_without_a_key_picks_as_often_as_asked(start_service: Start) -> None:
    picks = picked(start_service(web_with(*ADDRESSES, policy="round_robin")), "-n", "6")
    assert sorted(picks) == sorted(ADDRESSES * 2)


def test_pick_shows_the_whole_endpoint_in_json(start_service: Start) -> None:
    endpoint = {"address": ADDRESSES[0], "weight": 2, "locality": "eu/a", "metadata": {"hash_key": "b"}}
    (line,) = picked(start_service(web_with(endpoint)), "--json")
    shown = {**endpoint, "priority": 0, "health": "UNKNOWN", "hostname": ""}
    assert json.loads(line) == {"service": "web", "endpoints": [shown]}


def test_pick_explains_stage_by_stage(start_service: Start) -> None:
    service = start_service(WEB)
    (winner,) = picked(service, "--key", "user-17")
    lines = picked(service, "--key", "user-17", "--explain")
    assert lines[0] == "cluster web, policy ring_hash"
    assert lines[1] == f"hash {hash64('user-17'):#018x}"
    assert lines[2] == "priority 0: 3 healthy and 0 degraded of 3, load 100 % + 0 % degraded"
    assert lines[-2].startswith(f"the key's order: {winner}, ")
    assert lines[-1] == f"winner {winner}"
    (line,) = picked(service, "--key", "user-17", "--explain", "--json")
    told = json.loads(line)
    assert (told["service"], told["hash"], told["winner"]["address"]) == ("web", hash64("user-17"), winner)
    assert told["priorities"][0]["healthy_load"] == 100
    assert {each["address"] for each in told["candidates"]} == set(ADDRESSES)


def test_pick_explains_a_panic_and_where_nobody_is_left(start_service: Start) -> None:
    down = [{"address": address, "health": "unhealthy"} for address in ADDRESSES]
    service = start_service(web_with(*down))
    assert "PANIC: health is ignored" in "\n".join(picked(service, "--explain"))
    service.replace(web_with(*down, panic_threshold=0))
    wait_until(lambda: picked(service, "--explain")[-1].startswith("no winner: none of its 3 endpoints"), "the reason")


def test_pick_asks_for_a_subset_without_some_and_from_a_zone(start_service: Start) -> None:
    members = [
        {"address": address, "metadata": {"version": number, "name": f"n{number}"}, "locality": f"eu/{number}"}
        for number, address in enumerate(ADDRESSES)
    ]
    selectors = [{"keys": ["version"]}, {"keys": ["name"]}]
    zones = {"zone_aware": {"local_hosts": {"eu/0": 1, "eu/1": 1, "eu/2": 1}, "min_cluster_size": 1}}
    subsets = {"selectors": selectors, "fallback_policy": "any_endpoint"}
    service = start_service(web_with(*members, subsets=subsets, locality_policy=zones))
    assert picked(service, "--subset", "version=1", "-n", "2") == [ADDRESSES[1]] * 2
    assert picked(service, "--subset", "name=n2") == [ADDRESSES[2]]
    assert picked(service, "--exclude", ADDRESSES[0], "--exclude", ADDRESSES[2]) == [ADDRESSES[1]]
    assert set(picked(service, "--local-locality", "eu/2", "-n", "5")) == {ADDRESSES[2]}
    wrong = lbcore("pick", "web", "--explain", "-n", "2", "--server", service.grpc)
    assert (wrong.code, wrong.stderr.startswith("lbcore: --explain: ")) == (2, True)
    assert "expected KEY=VALUE" in lbcore("pick", "web", "--subset", "version").stderr


def test_pick_fails_where_no_endpoint_is_left(start_service: Start) -> None:
    service = start_service(web_with())
    ended = lbcore("pick", "web", "--server", service.grpc)
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("lbcore: ")
    assert "web" in ended.stderr


@pytest.mark.parametrize("count", ["0", "-1", "two", "1000001"])
def test_pick_refuses_a_count_that_is_none(count: str) -> None:
    ended = lbcore("pick", "web", f"-n={count}")
    assert ended.code == 2
    assert "expected a whole number, 1 to 1000000" in ended.stderr


@pytest.mark.parametrize("command", ["pick", "endpoints"])
def test_an_unknown_service_is_wrong_input(start_service: Start, command: str) -> None:
    service = start_service(WEB)
    assert lbcore(command, "nope", "--server", service.grpc) == (2, "", "lbcore: service 'nope': unknown\n")


@pytest.mark.parametrize("command", ["pick", "endpoints"])
def test_a_server_that_does_not_answer_is_named_without_a_traceback(command: str) -> None:
    server = f"127.0.0.1:{free_port()}"
    ended = lbcore(command, "web", "--server", server)
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"lbcore: no picker service answers at {server}: ")
    assert len(ended.stderr.splitlines()) == 1


# endpoints


def test_endpoints_shows_a_table(start_service: Start) -> None:
    endpoint = {"address": ADDRESSES[0], "weight": 2, "locality": "eu/a", "health": "draining"}
    service = start_service(web_with(endpoint, policy="maglev"))
    head, row = lbcore("endpoints", "web", "--server", service.grpc).stdout.splitlines()
    columns = ["SERVICE", "ENDPOINT", "WEIGHT", "LOCALITY", "PRIORITY", "HEALTH", "ACTIVE", "POLICY", "VERSION"]
    assert head.split() == columns
    assert row.split()[:-1] == ["web", ADDRESSES[0], "2", "eu/a", "0", "DRAINING", "0", "maglev"]


def test_endpoints_shows_every_service_unless_one_is_named(start_service: Start) -> None:
    service = start_service(json.dumps({"services": {"a": {"endpoints": []}, "b": {"endpoints": ADDRESSES}}}))
    assert [each["service"] for each in shown(service)["services"]] == ["a", "b"]
    assert [each["service"] for each in shown(service, "b")["services"]] == ["b"]


def test_endpoints_shows_addresses_and_policy_in_json(start_service: Start) -> None:
    (web,) = shown(start_service(WEB))["services"]
    assert web["policy"] == "ring_hash"
    assert [each["address"] for each in web["endpoints"]] == ADDRESSES


def shown(service: LbcoreService, *names: str) -> Any:
    ended = lbcore("endpoints", *names, "--json", "--server", service.grpc)
    assert (ended.code, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def test_endpoints_watch_shows_what_changes_and_what_goes(start_service: Start) -> None:
    service = start_service(WEB)
    with Process([*LBCORE, "endpoints", "--watch", "--server", service.grpc], cwd=ROOT) as watching:
        watching.wait_for_output("127.0.0.1:8083")
        service.replace(web_with("127.0.0.1:8084"))
        watching.wait_for_output("127.0.0.1:8084")
        service.replace("services: {}")
        watching.wait_for_output("^service web is gone$")


def test_endpoints_watch_shows_one_json_a_line(start_service: Start) -> None:
    service = start_service(WEB)
    with Process([*LBCORE, "endpoints", "web", "--watch", "--json", "--server", service.grpc], cwd=ROOT) as watching:
        wait_until(lambda: watching.stdout.count("\n") == 1, "the first state")
        service.replace(web_with("127.0.0.1:8084"))
        wait_until(lambda: watching.stdout.count("\n") == 2, "the change")
        _, changed = map(json.loads, watching.stdout.splitlines())
    assert [each["address"] for each in changed["services"][0]["endpoints"]] == ["127.0.0.1:8084"]


def test_ctrl_c_ends_a_watch_without_a_traceback(start_service: Start) -> None:
    service = start_service(WEB)
    with Process([*LBCORE, "endpoints", "--watch", "--server", service.grpc], cwd=ROOT) as watching:
        watching.wait_for_output("127.0.0.1:8083")
        watching.signal(signal.SIGINT)
        assert watching.wait() == 130
        assert watching.stderr == ""
