# SPDX-License-Identifier: MIT
"""`ometrics run` of programs of several processes: all are counted, each has a line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runs import MODEL, OMETRICS, call, environment, load, python
from hooks import wait_for

from ometrics import attach
from ometrics.testing import ScriptedOllama

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")

pytestmark = [
    pytest.mark.fork,
    pytest.mark.skipif(os.name == "nt", reason="segments are files mapped"),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

# `ask` has a connection of its own, as no two processes can share one.
ASK = """
import multiprocessing, os, signal, subprocess, sys, time
import ollama

def ask(*_):
    messages = [{"role": "user", "content": "Hi"}]
    ollama.Client().chat(model="llama3.2", messages=messages)
"""
# Each asks twice: once itself, once by a child of its own.
WAYS = {
    "fork": "pool('fork')",
    "spawn": "pool('spawn')",
    "forkserver": "pool('forkserver')",
    "os.fork": (
        "if not os.fork():\n"
        "    ask()\n"
        "    if not os.fork():\n"
        "        ask()\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    os._exit(0)\n"
        "os.wait()"
    ),
    "subprocess": "subprocess.run([sys.executable, __file__, 'child'], check=True)",
    "shell": "os.system(f'{sys.executable} {__file__} child')",
    "exec": (
        "child = [sys.executable, __file__, 'child']\n"
        "os.fork() or os.execv(sys.executable, child)\n"
        "os.wait()"
    ),
}
POOL = """
from concurrent.futures import ProcessPoolExecutor

def pool(way):
    context = multiprocessing.get_context(way)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(ask, range(2)))
"""
MAIN = """
if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        ask()
        subprocess.run([sys.executable, __file__, "grandchild"], check=True)
    elif sys.argv[1:] == ["grandchild"]:
        ask()
    else:
        ask()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedOllama]:
    """A model server for all of them."""
    with ScriptedOllama() as running:
        yield running


def program(folder: Path, way: str) -> Path:
    """A program that asks once, and starts others that ask, in one way."""
    path = folder / "program.py"
    indented = way.replace("\n", "\n        ")
    path.write_text(f"{ASK}{POOL}{MAIN}        {indented}\n")
    return path


@contextmanager
def running(
    *args: str | Path, env: dict[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`ometrics run`, its streams in pipes; killed in the end if it still runs."""
    with subprocess.Popen(
        [*OMETRICS, "run", *map(str, args)],
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def private(server: ScriptedOllama, folder: Path, **variables: str) -> dict[str, str]:
    """An environment whose run-time directory is the test's own."""
    (folder / "runtime").mkdir(exist_ok=True)
    return environment(server, XDG_RUNTIME_DIR=str(folder / "runtime"), **variables)


def lines(said: str) -> list[list[str]]:
    """The rows of the table of processes, as words."""
    below = said.partition("\nprocess ")[2].splitlines()[2:]
    rows = below[: below.index("")] if "" in below else below
    return [row.split() for row in rows]


@pytest.mark.parametrize("way", WAYS)
def test_children_and_grandchildren_count(
    way: str, server: ScriptedOllama, tmp_path: Path
) -> None:
    """
    However Python starts a process, its calls are in the numbers, and it has a line.

    Seen to fail without `announce` for all but the forks.
    """
    out = tmp_path / "out.json"
    env = private(server, tmp_path)
    result = call("run", "--json", out, program(tmp_path, WAYS[way]), env=env)

    assert 0 == result.returncode, result.stderr
    assert 3 == load(out).models[MODEL].successful_reqs, result.stderr
    assert "not measured" not in result.stderr
    assert "not counted in full" not in result.stderr
    rows = lines(result.stderr)
    assert 3 == sum(int(row[-4] if row[-2] == "exit" else row[-3]) for row in rows)
    assert [] == list((tmp_path / "runtime" / "ometrics").iterdir())


@linux
def test_a_killed_process_is_in_the_report(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """What it counted, and, where the system tells, that a signal killed it."""
    source = (
        "pid = os.fork()\n"
        "if not pid:\n"
        "    ask()\n"
        "    ask()\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(60)\n"
        "input()\n"
        "os.kill(pid, signal.SIGKILL)\n"
        "os.wait()"
    )
    env = private(server, tmp_path)
    with running(program(tmp_path, source), env=env) as process:
        assert process.stdout is not None
        assert "asked\n" == process.stdout.readline()
        _, said = process.communicate("\n", timeout=60)

    assert 0 == process.returncode
    assert "3 requests" in said
    killed, _ = lines(said)
    assert "2" == killed[2]
    assert " ".join(killed[4:]) in {"killed by signal 9", "ended"}


ENDINGS = {
    "os._exit(3)": 3,
    "os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
    "os.abort()": -signal.SIGABRT,
    "os.execv('/bin/sh', ['sh', '-c', 'exit 4'])": 4,
    "os.execv(sys.executable, ['p', '-c', 'raise SystemExit(5)'])": 5,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_reports_however_it_ends(
    ending: str, server: ScriptedOllama, tmp_path: Path
) -> None:
    """Killed, left in the middle or replaced: the report comes, and the end is its."""
    out = tmp_path / "out.json"
    env = private(server, tmp_path)
    result = call("run", "--json", out, program(tmp_path, ending), env=env)

    assert ENDINGS[ending] == result.returncode
    assert "1 request" in result.stderr
    assert 1 == load(out).total_requests


@pytest.mark.parametrize("form", ["script", "module"])
def test_a_program_has_its_name_and_end(
    form: str, server: ScriptedOllama, tmp_path: Path
) -> None:
    """
    However short it lives: in the report, and for who reads the directory.

    Seen to fail with "ometrics" for its name and "ended" for its end.
    """
    path = program(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    what = [path] if form == "script" else ["-m", "program"]
    env = private(server, tmp_path)
    result = call("run", "--directory", "kept", *what, env=env, cwd=tmp_path)

    (row,) = lines(result.stderr)
    name = {"script": "program.py", "module": "program"}[form]
    assert name in row
    assert ["killed", "by", "signal", str(int(signal.SIGSEGV))] == row[-4:]
    gone = attach(tmp_path / "kept").follow().read().folded.newest
    assert [name] == [one.program for one in gone]


def test_a_module_has_its_name_while_its_package_is_imported(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """Python has "-m" for it then, where most packages import their HTTP client."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import httpx")
    main = "from program import ask; ask()"
    (tmp_path / "package" / "__main__.py").write_text(main)
    path = program(tmp_path, "subprocess.run([sys.executable, '-m', 'package'])")
    env = private(server, tmp_path)
    result = call("run", "--directory", "kept", path, env=env, cwd=tmp_path)

    gone = attach(tmp_path / "kept").follow().read().folded.newest
    assert {"program.py", "package"} == {one.program for one in gone}, result.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs ulimit")
def test_records_without_room_are_said(server: ScriptedOllama, tmp_path: Path) -> None:
    """
    The report does not look whole where a process could not write, in that run alone.

    Seen to fail without the note: "no call to a model was seen" was all.
    """
    path = program(tmp_path, "pass")
    command = [*OMETRICS, "run", "--directory", "kept", str(path)]
    said = [
        subprocess.run(
            ["sh", "-c", f'{limit} exec "$@"', "sh", *command],
            cwd=tmp_path,
            env=private(server, tmp_path),
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for limit in ("", "ulimit -f 64;", "")
    ]

    assert [False, True, False] == ["may be missing" in one for one in said]
    assert ["1 request", "0 requests", "1 request"] == [
        re.findall(r"· (\d+ requests?)", one)[0] for one in said
    ]


@linux
def test_a_working_directory_that_is_removed(tmp_path: Path) -> None:
    """What is relative cannot be, and is said as any wrong argument."""
    path = program(tmp_path, "pass")
    shell = 'cd gone && rmdir ../gone && exec "$@"'
    for option in ("--json", "--directory"):
        command = [*OMETRICS, "run", option, "here", str(path)]
        (tmp_path / "gone").mkdir(exist_ok=True)
        result = subprocess.run(
            ["sh", "-c", shell, "sh", *command],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

        assert 2 == result.returncode
        assert "no working directory any more" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_go_on_to_the_program(
    number: signal.Signals, server: ScriptedOllama, tmp_path: Path
) -> None:
    """One that another process sends is handled by the program as if it was alone."""
    source = (
        f"signal.signal({int(number)}, lambda n, _: sys.exit(n + 1))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    env = private(server, tmp_path)
    with running(program(tmp_path, source), env=env) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=60)

    assert number + 1 == process.returncode


@linux
def test_a_killed_runner_takes_the_program_along_and_leaves_the_file(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """After kill -9 the last file is there, and the next run clears up."""
    out = tmp_path / "out.json"
    env = private(server, tmp_path)
    source = "print(os.getpid(), flush=True)\ntime.sleep(60)"
    with running("--json", out, program(tmp_path, source), env=env) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        wait_for(out.exists)
        process.kill()
        process.communicate(timeout=60)
        wait_for(lambda: not is_running(pid))

    assert 1 == load(out).total_requests
    (left,) = (tmp_path / "runtime" / "ometrics").iterdir()
    call("run", program(tmp_path, "pass"), env=env)
    assert not left.exists()


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


UNREACHED = {
    "-I": "['-I', *WAIT]",
    "-S": "['-BS', *WAIT]",
    "OMETRICS_RUN": "WAIT, env={}",
    "PYTHONPATH": "WAIT, env={**os.environ, 'PYTHONPATH': ''}",
    "no ometrics": "WAIT, env={**os.environ, 'PYTHONPATH': PATH + os.pathsep + 'bad'}",
}


@linux
def test_processes_that_are_not_reached_are_named(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """
    The report says which Python was not measured, why, and what to do.

    One whose `ometrics` cannot be imported runs as if nothing had been.
    """
    (tmp_path / "bad" / "ometrics").mkdir(parents=True)
    (tmp_path / "bad" / "ometrics" / "__init__.py").write_text("raise OSError")
    starts = "\n".join(f"start({what})" for what in UNREACHED.values())
    source = (
        "WAIT = ['-c', 'print(flush=True); input()']\n"
        "PATH = os.environ['PYTHONPATH'].partition(os.pathsep)[0]\n"
        "def start(args, **options):\n"
        "    children.append(subprocess.Popen(\n"
        "        [sys.executable, *args], stdin=subprocess.PIPE, **options))\n"
        f"children = []\n{starts}\n"
        "input()\n"
        "for child in children: child.communicate(b'x')\n"
        "print([child.returncode for child in children])"
    )
    out = tmp_path / "out.json"
    env = private(server, tmp_path)
    path = program(tmp_path, source)
    with running("--json", out, path, env=env, cwd=tmp_path) as process:
        assert process.stdout is not None
        for _ in UNREACHED:
            assert "\n" == process.stdout.readline()
        # The file is written when the runner has looked.
        enough = time.time() + 1.2
        wait_for(lambda: out.exists() and out.stat().st_mtime > enough)
        written, said = process.communicate("\n", timeout=60)

    assert f"{[0] * len(UNREACHED)}\n" == written
    told = [line for line in said.splitlines() if "was not measured" in line]
    assert len(UNREACHED) == len(told)
    for why, line in zip(UNREACHED, sorted(told), strict=True):
        assert any(why in line for line in told), (why, line)
    assert "ometrics.instrument()" in said


@pytest.mark.parametrize("error", ["", "raise ValueError"])
def test_a_shadowed_sitecustomize_runs(
    error: str, server: ScriptedOllama, tmp_path: Path
) -> None:
    """The one of the user's runs as ever, and fails as ever; `sys.path` is theirs."""
    (tmp_path / "sitecustomize.py").write_text(f"print('theirs', flush=True)\n{error}")
    look = "import sitecustomize, sys; print(sitecustomize.__file__, sys.path)"
    child = program(
        tmp_path, f"subprocess.run([sys.executable, '-c', {look!r}], check=True)"
    )
    env = private(server, tmp_path)
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    bare = python(child, env=env)
    measured = call("run", child, env=env)

    assert bare.stdout == measured.stdout
    assert bare.stderr in measured.stderr


def test_a_process_without_http_loads_nothing(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """What is started for other work, often and shortly, does not wait for ours."""
    look = "import sys; print({'ometrics.collector', 'msgspec'} & {*sys.modules})"
    path = program(tmp_path, f"subprocess.run([sys.executable, '-c', {look!r}])")
    result = call("run", path, env=private(server, tmp_path))

    assert "set()\n" == result.stdout
    assert "not measured" not in result.stderr


def test_a_directory_outlives_its_runs(server: ScriptedOllama, tmp_path: Path) -> None:
    """Each run reports itself, and the directory has them all."""
    out, directory = tmp_path / "out.json", tmp_path / "here"
    path = program(tmp_path, "ask()")
    by_option = ("--directory", directory), private(server, tmp_path)
    by_variable = (), private(server, tmp_path, OMETRICS_DIR=str(directory))
    for options, env in (by_option, by_variable):
        result = call("run", "--json", out, *options, path, env=env)
        assert 2 == load(out).total_requests, result.stderr

    assert 4 == attach(directory).snapshot().total_requests


def test_a_run_in_a_run_counts_in_both(server: ScriptedOllama, tmp_path: Path) -> None:
    """As the outer one's processes are the inner one's too."""
    inner, outer = tmp_path / "inner.json", tmp_path / "outer.json"
    command = [sys.executable, "-m", "ometrics", "run", "--json", str(inner)]
    path = program(
        tmp_path, f"subprocess.run([*{command!r}, __file__, 'child'], check=True)"
    )
    result = call("run", "--json", outer, path, env=private(server, tmp_path))

    assert 0 == result.returncode, result.stderr
    assert (2, 3) == (load(inner).total_requests, load(outer).total_requests)


def test_a_directory_that_cannot_be_exits_with_2(tmp_path: Path) -> None:
    """Nothing runs, and the message says why."""
    tmp_path.chmod(0o777)
    path = program(tmp_path, "print('ran')")
    result = call("run", "--directory", tmp_path, path)

    assert (2, "") == (result.returncode, result.stdout)
    assert "others can write" in result.stderr
