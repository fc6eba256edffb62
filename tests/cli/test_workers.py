# SPDX-License-Identifier: MIT
"""`ometrics run` of pools of workers as people have them: no call is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from cli_runs import MODEL, OMETRICS, call, environment, load, python
from hooks import wait_for
from ports import free_port

import ometrics
from ometrics.testing import ScriptedOllama

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

pytestmark = [
    pytest.mark.fork,
    pytest.mark.skipif(os.name == "nt", reason="these servers need POSIX"),
]

# One call to a model for each request; the answer is the process's number.
APP = """
import asyncio, os
import ollama

def ask():
    messages = [{"role": "user", "content": "Hi"}]
    ollama.Client().chat(model="llama3.2", messages=messages)
    return str(os.getpid()).encode()

def wsgi(environ, start_response):
    answer = ask()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    answer = await asyncio.to_thread(ask)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer})
"""
_GUNICORN = ("gunicorn", "-w", "2", "-b", "127.0.0.1:0")
SERVERS = {
    "uvicorn": ("uvicorn", "--workers", "2", "--port", "PORT", "app:asgi"),
    "gunicorn": (*_GUNICORN, "app:wsgi"),
    "preload": (*_GUNICORN, "--preload", "app:wsgi"),
    "recycled": (*_GUNICORN, "--max-requests", "6", "app:wsgi"),
    "uvicorn-worker": (*_GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "app:asgi"),
}
_DIRECT = build_opener(ProxyHandler({}))


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedOllama]:
    """A model server for all of them."""
    with ScriptedOllama() as running:
        yield running


class Service:
    """
    A service of several workers under `ometrics run`.

    Args:
        folder: Where its application and its files are.
        server: Whom it asks.
        command: A module, and its arguments.
    """

    def __init__(
        self, folder: Path, server: ScriptedOllama, command: tuple[str, ...]
    ) -> None:
        (folder / "app.py").write_text(APP)
        self._stderr, self.json = folder / "stderr", folder / "out.json"
        run = [*OMETRICS, "run", "--serve", "0", "--json", str(self.json), "-m"]
        arguments = [str(free_port()) if one == "PORT" else one for one in command]
        with self._stderr.open("wb") as file:
            self.process = subprocess.Popen(
                [*run, *arguments],
                cwd=folder,
                env=environment(server, XDG_RUNTIME_DIR=str(folder)),
                stdout=file,
                stderr=file,
            )
        self._urls = wait_for(self._told)

    @property
    def said(self) -> str:
        """All that it wrote."""
        return self._stderr.read_text()

    def _told(self) -> dict[str, str] | None:
        """Where the metrics and the application are, when both are known."""
        assert self.process.poll() is None, self.said
        metrics = re.search(r"serving (\S+)/metrics", self.said)
        app = re.search(r"(?:running on|Listening at:) (http://[\d.:]+)", self.said)
        return {"metrics": metrics[1], "app": app[1]} if metrics and app else None

    def ask(self, times: int) -> set[int]:
        """Request so often, some at once; the processes that answered."""
        with ThreadPoolExecutor(4) as threads:
            return set(threads.map(lambda _: self._ask(), range(times)))

    def ask_two_workers(self) -> tuple[int, set[int]]:
        """40 requests, again until two have answered: how many, and who did."""
        requests, workers = 0, set[int]()
        while len(workers) < 2:  # one may be ready long before the other
            workers |= self.ask(40)
            requests += 40
        return requests, workers

    def _ask(self) -> int:
        def answer() -> int | None:
            try:
                with _DIRECT.open(self._urls["app"], timeout=20) as response:
                    return int(response.read())
            except OSError:  # no worker yet, or not any more
                return None

        return wait_for(answer)

    def counted(self) -> int:
        """How many calls the page has now."""
        return ometrics.read(self._urls["metrics"]).snapshot().total_requests

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def service(
    folder: Path, server: ScriptedOllama, command: tuple[str, ...]
) -> Iterator[Service]:
    """A service that runs meanwhile."""
    running = Service(folder, server, command)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


@pytest.mark.parametrize("name", SERVERS)
def test_every_worker_counts(name: str, server: ScriptedOllama, tmp_path: Path) -> None:
    """40 requests to two workers: 40 on the page meanwhile, and in the file."""
    command = SERVERS[name]
    for package in (command[0], "uvicorn_worker"):
        if not find_spec(package):
            pytest.skip(f"{package} is not installed")
    with service(tmp_path, server, command) as running:
        requests, workers = running.ask_two_workers()

        assert requests == running.counted()
        running.end()

    assert requests == load(running.json).models[MODEL].successful_reqs
    assert f"{requests:,} requests" in running.said
    for pid in workers:
        assert re.search(rf"^\S.* {pid} +\d+ ", running.said, re.MULTILINE)
    assert [] == list((tmp_path / "ometrics").iterdir())


def test_workers_that_are_replaced_lose_nothing(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """Neither by a reload (SIGHUP), nor killed at any time."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    before = len(server.requests)
    with service(tmp_path, server, SERVERS["gunicorn"]) as running:
        first = running.ask(20)
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not (running.ask(1) & first))
        second = running.ask(9)
        os.kill(next(iter(second)), signal.SIGKILL)
        running.ask(10)
        asked = len(server.requests) - before

        assert asked == running.counted()
        running.end()

    assert asked == load(running.json).total_requests


TASKS = """
import celery
from app import ask as ask_once

folder = {"data_folder_in": "queue", "data_folder_out": "queue"}
app = celery.Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={**folder, "control_folder": "control"},
    task_ignore_result=True,
)

@app.task
def ask():
    ask_once()

if __name__ == "__main__":
    for _ in range(40):
        app.send_task("tasks.ask")
"""


def test_tasks_of_celery(server: ScriptedOllama, tmp_path: Path) -> None:
    """Celery's prefork pool, with a broker of files: 40 tasks, 40 calls."""
    pytest.importorskip("celery", reason="celery is not installed")
    for name, text in (("app.py", APP), ("tasks.py", TASKS)):
        (tmp_path / name).write_text(text)
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    out, said = tmp_path / "out.json", tmp_path / "stderr"
    env = environment(server, XDG_RUNTIME_DIR=str(tmp_path))
    assert 0 == python("tasks.py", env=env, cwd=tmp_path).returncode
    pool = ("celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*OMETRICS, "run", "--json", str(out), "-m", *pool, *quiet],
            cwd=tmp_path,
            env=env,
            stdout=file,
            stderr=file,
        )
    try:
        # While it runs, whoever is told the directory may read it.
        home = tmp_path / "ometrics"
        wait_for(lambda: home.exists() and any(home.iterdir()))
        source = ometrics.attach(next(home.iterdir()))
        wait_for(lambda: 40 == source.snapshot().total_requests)
        process.terminate()
        assert 0 == process.wait(60), said.read_text()
    finally:
        process.kill()
        process.wait()

    assert 40 == load(out).models[MODEL].successful_reqs
    assert 2 == len(
        re.findall(r"^\S.* \d+ +\d+ +0 +exit 0", said.read_text(), re.MULTILINE)
    )


def test_jobs_of_joblib(server: ScriptedOllama, tmp_path: Path) -> None:
    """Its processes, which it starts in a way of its own: 40 jobs, 40 calls."""
    pytest.importorskip("joblib", reason="joblib is not installed")
    (tmp_path / "app.py").write_text(APP)
    program, out = tmp_path / "jobs.py", tmp_path / "out.json"
    program.write_text(
        "import app, joblib\n"
        "jobs = (joblib.delayed(app.ask)() for _ in range(40))\n"
        "print(len(set(joblib.Parallel(n_jobs=2)(jobs))))\n"
    )
    env = environment(server, XDG_RUNTIME_DIR=str(tmp_path))
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    result = call("run", "--json", out, program, env=env)

    assert 0 == result.returncode, result.stderr
    assert 40 == load(out).models[MODEL].successful_reqs
    assert int(result.stdout) == len(re.findall("loky", result.stderr))


def test_tasks_of_ray(server: ScriptedOllama, tmp_path: Path) -> None:
    """Its workers, which no Python process starts: 40 tasks, 40 calls."""
    ray = find_spec("ray")
    if ray is None or ray.origin is None:
        pytest.skip("ray is not installed")
    (tmp_path / "app.py").write_text(APP)
    program, out = tmp_path / "tasks.py", tmp_path / "out.json"
    program.write_text(
        "import app, ray\n"
        "ray.init(num_cpus=2, include_dashboard=False, logging_level='ERROR')\n"
        "ask = ray.remote(app.ask)\n"
        "ray.get([ask.remote() for _ in range(40)])\n"
        "ray.shutdown()\n"
    )
    env = environment(server, XDG_RUNTIME_DIR=str(tmp_path))
    paths = (env["PYTHONPATH"], str(tmp_path), str(Path(ray.origin).parents[1]))
    env |= {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    result = call("run", "--json", out, program, env=env)

    assert 0 == result.returncode, result.stderr
    assert 40 == load(out).models[MODEL].successful_reqs
