"""What worker processes carry: `lbcore serve` with one and with two of them, beside the same without.

    python -m bench.workers [ROUNDS [STREAMS]]

Workers carry the streams of xDS themselves, and hand every other call, so picks too, to the first process. Clients are
two processes on the same machine, so on one of few cores they take the time that more workers would: what counts there
is CPU. The CPU of the busiest process is what bounds how much can be carried where there are cores for all. Rounds of
the kinds alternate; each row has the median over them with p10 and p90, and the ratio to one worker of the same round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.harness.service import LbcoreService

KINDS = (0, 1, 2)  # workers
PROCESSES = 2  # of clients
CONNECTIONS = 16  # of each of them
SECONDS = 1.5  # of picks, a round
CHANGES = 5  # a round


def configuration(port: int) -> str:
    first = {"address": f"10.99.0.1:{port}"}
    endpoints = [first, *({"address": f"10.0.0.{number}:80"} for number in range(1, 10))]
    web = {"policy": "maglev", "endpoints": endpoints}
    return json.dumps({"services": {"web": web}, "xds": {"max_new_streams": 100_000}})


class Clients:
    """One process of clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, command: str) -> dict[str, float]:
        """Gives a command, and returns what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def clients(target: str) -> Iterator[Clients]:
    command = [sys.executable, "-m", "bench.worker_clients", target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Clients(process)
        process.communicate(timeout=30)


class Subject:
    """A service with its clients."""

    def __init__(self, workers: int, running: ExitStack) -> None:
        self.workers = workers
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        self.port = 1
        options = ("--workers", str(workers)) if workers else ()
        self._service = running.enter_context(LbcoreService(folder, configuration(self.port), *options))
        self._clients = [running.enter_context(clients(self._service.grpc)) for _ in range(PROCESSES)]
        self._threads = running.enter_context(ThreadPoolExecutor(PROCESSES))

    def say(self, command: str) -> list[dict[str, float]]:
        """To all clients at once; their answers."""
        return list(self._threads.map(lambda each: each.say(command), self._clients))

    def cpu(self) -> list[float]:
        """CPU seconds of each of its processes so far."""
        pid = self._service.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [time.clock_gettime(cpu_clock(each)) for each in (pid, *map(int, children))]

    def change(self) -> float:
        """One change; seconds from the moment that the file has it until every stream has."""
        self.port += 1
        self._service.replace(configuration(self.port))
        begun = time.monotonic()
        return max(answer["at"] for answer in self.say(f"await {self.port}")) - begun


def cpu_clock(pid: int) -> int:
    """The clock of another process's CPU time, as clock_getcpuclockid(3) makes it; /proc counts in hundredths."""
    return (~pid << 3) | 2


Figures = dict[str, float]


def spent(before: list[float], after: list[float], count: float) -> Figures:
    """CPU for one of `count`, in microseconds: of all processes, and of the busiest."""
    used = [(late - early) / count * 1e6 for early, late in zip(before, after, strict=True)]
    return {"us of CPU": sum(used), "us of the busiest process": max(used)}


def picks(subject: Subject, kind: str) -> Figures:
    before = subject.cpu()
    answers = subject.say(f"{kind} {CONNECTIONS} {SECONDS}")
    count = sum(answer["picks"] for answer in answers)
    return {"a second": count / max(answer["seconds"] for answer in answers)} | spent(before, subject.cpu(), count)


def pushes(subject: Subject, streams: int) -> Figures:
    before = subject.cpu()
    delays = [subject.change() for _ in range(CHANGES)]
    time.sleep(0.3)  # their answers are on the way
    return {"ms from file to all": statistics.median(delays) * 1e3} | spent(before, subject.cpu(), CHANGES * streams)


def middle(values: list[float]) -> str:
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return f"{statistics.median(values):.4g} [{tenths[0]:.4g} to {tenths[-1]:.4g}]"


GOALS = {
    ("push", "us of the busiest process", 2): "goal <= 0.6",
    ("push", "us of CPU", 2): "goal <= 1.1",
    ("Pick", "us of the busiest process", 2): "goal <= 0.7",
    ("PickStream", "us of the busiest process", 2): "goal <= 0.9",
}


def show(subject: str, rounds: list[dict[int, Figures]]) -> None:
    for figure in rounds[0][1]:
        for workers in KINDS:
            ratios = [each[workers][figure] / each[1][figure] for each in rounds]
            values = middle([each[workers][figure] for each in rounds])
            ratio = "" if workers == 1 else f"ratio {middle(ratios)}"
            goal = GOALS.get((subject, figure, workers), "")
            print(f"{subject:10} {figure:26} workers {workers}  {values:32} {ratio:34} {goal}".rstrip(), flush=True)


def run(rounds: int, streams: int) -> None:
    with ExitStack() as running:
        subjects = [Subject(workers, running) for workers in KINDS]
        for subject in subjects:
            subject.say(f"follow {streams // PROCESSES}")
            subject.change()
        measures: dict[str, Callable[[Subject], Figures]] = {
            "push": lambda subject: pushes(subject, streams),
            "Pick": lambda subject: picks(subject, "pick"),
            "PickStream": lambda subject: picks(subject, "stream"),
        }
        for name, measure in measures.items():
            show(name, [{each.workers: measure(each) for each in subjects} for _ in range(rounds)])


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    run(*(given + [10, 1000][len(given) :]))
