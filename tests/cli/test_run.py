# SPDX-License-Identifier: MIT
"""`ometrics run`: the program runs as under `python`, and every call is counted."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from threading import Timer
from urllib.request import urlopen

import pytest
from cli_runs import (
    ASK,
    MODEL,
    OMETRICS,
    call,
    environment,
    load,
    python,
    stream,
)

from ometrics.testing import Hang, ScriptedOllama, chat_chunk, chat_done

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def script(folder: Path, text: str, name: str = "program.py") -> Path:
    """A program in a file."""
    path = folder / name
    path.write_text(text)
    return path


def test_summary_goes_to_stderr_and_stdout_is_the_programs(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """Standard output has the program's bytes only; the summary is plain text."""
    result = call("run", script(tmp_path, ASK), env=environment(server))

    assert "Hello, world!\n" == result.stdout
    assert 0 == result.returncode
    assert "1 request" in result.stderr
    assert MODEL in result.stderr
    assert "\x1b" not in result.stderr


def test_json_holds_every_call(server: ScriptedOllama, tmp_path: Path) -> None:
    """Calls, streams and failures of the client are in the written file."""
    server.queue("/api/chat", [chat_done("one")], stream("t", "w", "o"))
    program = script(tmp_path, ASK + "for chunk in ask(stream=True): pass\n")
    out = tmp_path / "out.json"
    result = call("run", "--json", out, program, env=environment(server))

    assert f"wrote {out}" in result.stderr
    model = load(out).models[MODEL]
    assert 2 == model.successful_reqs
    assert 1 == model.calls["chat"].time_to_first_chunk.count


def test_the_openai_client_is_measured_too(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """Under `-m`, too, and by the same record."""
    pytest.importorskip("openai", reason="the extra openai is not installed")
    script(
        tmp_path,
        "import openai\n"
        f"client = openai.OpenAI(base_url={server.openai_url!r}, api_key='none')\n"
        "message = {'role': 'user', 'content': 'Hi'}\n"
        f"client.chat.completions.create(model={MODEL!r}, messages=[message])\n",
    )
    out = tmp_path / "out.json"
    result = call("run", "--json", out, "-m", "program", cwd=tmp_path)

    assert 0 == result.returncode, result.stderr
    assert 1 == load(out).models[MODEL].successful_reqs


ENDINGS = {
    "end": "print('done')",
    "exit": "raise SystemExit(7)",
    "message": "import sys; sys.exit('no more')",
    "exception": "def f(): raise ValueError('[bold]oops')\nf()",
    "syntax": "def f(:",
    "interrupt": "raise KeyboardInterrupt",
    "sigint": "import os, time; os.kill(os.getpid(), 2); time.sleep(9)",
    "sigterm": "import os, time; os.kill(os.getpid(), 15); time.sleep(9)",
    "sighup": "import os, time; os.kill(os.getpid(), 1); time.sleep(9)",
    "unflushed": "import os\nprint('lost')\nos.kill(os.getpid(), 15)\nprint('x')",
    "handled": (
        "import os, signal, sys\n"
        "signal.signal(15, lambda *_: sys.exit(3))\n"
        "os.kill(os.getpid(), 15)\nprint('not reached')"
    ),
    "ignored": (
        "import os, signal\nsignal.signal(15, signal.SIG_IGN)\n"
        "os.kill(os.getpid(), 15)\nprint('still here')"
    ),
    "hook": (
        "import sys\nsys.excepthook = lambda k, e, t: print(k, e, t.tb_lineno)\n1/0"
    ),
    "thread": (
        "import threading, time\n"
        "def late(): time.sleep(0.2); print('late', __name__)\n"
        "threading.Thread(target=late).start()\nprint('main')"
    ),
    "atexit": (
        "import atexit, sys\n"
        "def bye(): print(vars(sys.modules['__main__']) is globals(), sys.argv)\n"
        "atexit.register(bye)"
    ),
}


@posix
@pytest.mark.parametrize("ending", ENDINGS)
def test_ends_as_under_python(ending: str, tmp_path: Path) -> None:
    """
    Exit code, signal, output and traceback are those of plain `python`.

    Seen to fail for the signals without their handler, for the tracebacks without
    `_hide_our_frames`, and for `atexit` with `runpy.run_path`.
    """
    program = script(tmp_path, ENDINGS[ending])
    out = tmp_path / "out.json"
    bare = python(program)
    run = call("run", "--json", out, program)

    assert bare.returncode == run.returncode
    assert bare.stdout == run.stdout
    said, separator, _ = run.stderr.partition("ometrics · ")
    assert bare.stderr == said
    assert separator
    assert 0 == load(out).total_requests


CONTEXT = """
import os, sys
print(sys.argv, sys.path[0], __name__, __file__, __package__, __spec__ is None)
print(sys.modules["__main__"].__dict__ is globals(), __builtins__.__name__, __doc__)
"""


@pytest.mark.parametrize("form", ["script", "link", "module", "package", "folder"])
def test_runs_in_the_context_that_python_gives(form: str, tmp_path: Path) -> None:
    """argv, path and `__main__` are as `python` sets them, whatever is run."""
    script(tmp_path, CONTEXT)
    (tmp_path / "pack").mkdir()
    script(tmp_path / "pack", CONTEXT, "__main__.py")
    if form == "link":
        (tmp_path / "pack" / "link.py").symlink_to(tmp_path / "program.py")
    args = {
        "script": ["program.py"],
        "link": ["pack/link.py"],
        "module": ["-m", "program"],
        "package": ["-m", "pack"],
        "folder": ["pack"],
    }[form]
    rest = ["--json", "-m", "--", "x y"]

    bare = python(*args, *rest, cwd=tmp_path)
    run = call("run", *args, *rest, cwd=tmp_path)

    assert 0 == bare.returncode
    assert bare.stdout == run.stdout


def test_processes_of_the_program_find_its_main(tmp_path: Path) -> None:
    """multiprocessing, spawning, imports the program again in its children."""
    program = script(
        tmp_path,
        "import multiprocessing\n"
        "def double(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]))\n",
    )
    result = call("run", program)

    assert "[2, 4]\n" == result.stdout


@pytest.mark.fork
@posix
def test_forked_children_say_nothing(tmp_path: Path) -> None:
    """Only the process that began reports, though a child ends the usual way."""
    program = script(
        tmp_path, "import os\nif os.fork(): os.wait()\nprint(len([os.getpid()]))"
    )
    out = tmp_path / "out.json"
    result = call("run", "--json", out, program)

    assert "1\n1\n" == result.stdout
    assert 1 == result.stderr.count("ometrics · ")
    assert 1 == result.stderr.count("wrote")


def test_calls_after_the_end_of_main_count(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """What threads and exit handlers ask after the last line is in the summary."""
    late = "import atexit, threading\natexit.register(ask)\n"
    program = script(tmp_path, ASK + late + "threading.Thread(target=ask).start()\n")
    out = tmp_path / "out.json"
    call("run", "--json", out, program, env=environment(server))

    assert 3 == load(out).total_requests


def test_clients_are_not_imported_for_others(tmp_path: Path) -> None:
    """A program without them does not pay for them."""
    program = script(
        tmp_path, "import sys\nprint({'ollama', 'openai', 'httpx'} & {*sys.modules})"
    )
    result = call("run", program)

    assert "set()\n" == result.stdout
    assert "no call to a model was seen" in result.stderr
    assert "ometrics.instrument(hosts=[...])" in result.stderr


def test_a_module_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    """A program's own `httpx.py` works; one line says that it is not measured."""
    script(tmp_path, "answer = 42", "httpx.py")
    program = script(tmp_path, "import httpx\nprint(httpx.answer)")
    result = call("run", program)

    assert "42\n" == result.stdout
    assert 0 == result.returncode
    assert "httpx is not measured" in result.stderr


def test_a_client_that_was_not_measured(tmp_path: Path) -> None:
    """So with a client that has a way of its own to the network."""
    script(tmp_path, "", "pycurl.py")
    result = call("run", script(tmp_path, "import pycurl"))

    assert "calls by pycurl are not measured" in result.stderr


def test_a_program_that_asks_whether_a_client_is_there(
    tmp_path: Path, server: ScriptedOllama
) -> None:
    """To look for a package, however often, does not keep it from being measured."""
    source = f"""
import importlib.util
for _ in range(3):
    for name in ("httpx", "ollama", "aiohttp", "httpx2"):
        importlib.util.find_spec(name)
import ollama
ollama.Client({server.url!r}).chat("llama3.2", [{{"role": "user", "content": "x"}}])
"""
    program = script(tmp_path, source)
    result = call("run", "--json", tmp_path / "out.json", program)

    assert "" == result.stdout
    assert 1 == load(tmp_path / "out.json").total_requests


def test_json_goes_where_it_was_asked_for(tmp_path: Path) -> None:
    """A relative name is meant from where the command was given."""
    program = script(tmp_path, "import os\nos.chdir('/')")
    result = call("run", "--json", "out.json", program, cwd=tmp_path)

    assert 0 == result.returncode
    assert 0 == load(tmp_path / "out.json").total_requests


def test_a_failing_export_changes_nothing_for_the_program(tmp_path: Path) -> None:
    """The exit code stays the program's; the reason is told."""
    (tmp_path / "gone").mkdir()
    program = script(tmp_path, "import os, sys\nos.rmdir('gone')\nsys.exit(4)")
    result = call("run", "--json", "gone/out.json", program, cwd=tmp_path)

    assert 4 == result.returncode
    assert "cannot write the JSON" in result.stderr


def test_a_closed_stderr_changes_nothing(tmp_path: Path) -> None:
    """Nobody hears the summary, and the program ends as it would."""
    program = script(
        tmp_path, "import os, sys\nos.close(2)\nsys.stderr = None\nprint(1)"
    )
    result = call("run", program)

    assert ("1\n", 0) == (result.stdout, result.returncode)


@posix
@pytest.mark.parametrize("full", [True, False])
def test_a_summary_that_cannot_be_written_loses_nothing_else(
    full: bool, server: ScriptedOllama, tmp_path: Path
) -> None:
    """Its disk is full, or its reader went away: the file and the exit code are right.

    Seen to fail where rich ends the process, and where the file is part of the summary.
    """
    (tmp_path / "runtime").mkdir(0o700)
    out = tmp_path / "out.json"
    program = script(tmp_path, f"{ASK}raise SystemExit(3)")
    env = environment(server, XDG_RUNTIME_DIR=str(tmp_path / "runtime"))
    if full:
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stderr = os.pipe()
        os.close(reader)
    command = [*OMETRICS, "run", "--json", str(out), str(program)]
    result = subprocess.run(
        command, env=env, stdout=subprocess.DEVNULL, stderr=stderr, check=False
    )
    os.close(stderr)

    assert 3 == result.returncode
    assert 1 == load(out).total_requests
    assert [] == list((tmp_path / "runtime" / "ometrics").iterdir())


@posix
def test_closed_streams_change_nothing(tmp_path: Path) -> None:
    """As daemons have it: no standard input, output and errors at all."""
    program = script(tmp_path, "import sys\nsys.exit(3 if sys.stdout is None else 4)")
    command = " ".join([*OMETRICS, "run", str(program), "<&- >&- 2>&-"])
    result = subprocess.run(command, shell=True, env=environment(), check=False)

    assert 3 == result.returncode


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nowhere.py"], "no file 'nowhere.py'"),
        ([], "Missing argument 'PROGRAM'"),
        (["--json", "nowhere/out.json", "program.py"], "does not exist"),
        (["--json", ".", "program.py"], "is a directory"),
        (["--serve", "70000", "program.py"], "70000"),
        (["--wrong", "program.py"], "--wrong"),
    ],
)
def test_wrong_use_of_run_exits_with_2(
    args: list[str], told: str, tmp_path: Path
) -> None:
    """Nothing runs, and the message says what is wrong."""
    script(tmp_path, "print('ran')")
    result = call("run", *args, cwd=tmp_path)

    assert (2, "") == (result.returncode, result.stdout)
    assert told in result.stderr


def test_live_in_a_pipe_has_no_control_characters(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """`--live` without a terminal is only the summary."""
    result = call("run", "--live", script(tmp_path, ASK), env=environment(server))

    assert "\x1b" not in result.stderr
    assert "\r" not in result.stderr
    assert "1 request" in result.stderr


def test_serves_while_it_runs(server: ScriptedOllama, tmp_path: Path) -> None:
    """`/metrics` of the address that was told has the program's calls."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    program = script(tmp_path, ASK + "print('asked', flush=True)\ninput()\n")
    with subprocess.Popen(
        [*OMETRICS, "run", "--serve", "0", str(program)],
        env=environment(server),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        while process.stdout.readline() != "asked\n":
            pass
        with urlopen(url, timeout=10) as response:
            page = response.read().decode()
        process.communicate("\n", timeout=30)

    assert 0 == process.returncode
    assert f'"{MODEL}"' in page


def test_a_port_in_use_exits_with_2(server: ScriptedOllama, tmp_path: Path) -> None:
    """Nothing runs; the message says what to do."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    program = script(tmp_path, "print('ran')")
    result = call("run", "--serve", str(server.port), program)

    assert (2, "") == (result.returncode, result.stdout)
    assert "choose another one" in result.stderr


@posix
def test_a_stream_that_goes_silent_is_told_while_it_is(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """With model, operation, age and the time since the last chunk."""
    server.script("/api/chat", [chat_chunk("Hel"), Hang(), chat_done()])
    program = script(tmp_path, ASK.replace("print(ask()", "list(ask(stream=True)) #"))
    rules = tmp_path / "rules.toml"
    rules.write_text('[stalls]\nchunk = "0.2s"\nanswer = false\n')
    command = [*OMETRICS, "run", "--rules", rules, program]
    too_late = Timer(20, server.release)
    too_late.start()
    with subprocess.Popen(
        command, env=environment(server), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        firing = process.stderr.readline()
        server.release()
        resolved = process.stderr.readline()
        process.communicate(timeout=60)
    too_late.cancel()

    assert re.fullmatch(
        r"ometrics: firing stalled stream: time since the last chunk of llama3.2 is"
        r" (\S+), above 200ms \(chat, \S+ old, last chunk \1 ago\)\n",
        firing,
    )
    assert "resolved stalled stream" in resolved
    assert 0 == process.returncode
