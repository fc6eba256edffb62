# SPDX-License-Identifier: MIT
"""The plugin of pytest, in runs of pytest of its own."""

from __future__ import annotations

import pytest

from ometrics.testing import ScriptedOllama, Status

pytest_plugins = ["pytester"]
pytest.importorskip("ollama")
pytest.importorskip("openai")  # here, as pytester forgets what was imported in a run

ASK = """
import ollama
import pytest

HI = {{"role": "user", "content": "hi"}}

def ask():
    with ollama.Client(host={url!r}, verify=False) as client:
        client.chat(model="llama3.2", messages=[HI])
"""


def run(
    pytester: pytest.Pytester, server: ScriptedOllama, tests: str
) -> pytest.RunResult:
    """Run tests that ask this server."""
    pytester.makepyfile(ASK.format(url=server.url) + tests)
    return pytester.runpytest_inprocess(
        *(
            "-p",
            "no:ometrics",
            "-p",
            "ometrics.pytest_plugin",
            "-p",
            "no:cacheprovider",
            "--strict-markers",
        )
    )


def test_the_fixture_sees_the_calls_of_its_test(pytester: pytest.Pytester) -> None:
    """Each test has a collector of its own, and a line in the summary."""
    with ScriptedOllama() as server:
        result = run(
            pytester,
            server,
            """
def test_two(ometrics):
    ask(), ask()
    assert 2 == ometrics.snapshot().total_requests

def test_one(ometrics):
    ask()
    assert 1 == ometrics.snapshot().total_requests

def test_none():
    ask()
""",
        )

    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["*= ometrics =*", "*test_two: llama3.2 2 requests, 0 failed, p95 *"]
    )
    result.stdout.no_fnmatch_line("*test_none*requests*")


def test_the_marker_holds(pytester: pytest.Pytester) -> None:
    """A test whose expectations hold passes, without asking for the fixture."""
    with ScriptedOllama() as server:
        result = run(
            pytester,
            server,
            """
@pytest.mark.objective("latency.p95 < 1h", "errors == 0", "requests == 2")
def test_quick():
    ask(), ask()
""",
        )

    result.assert_outcomes(passed=1)


def test_the_marker_fails(pytester: pytest.Pytester) -> None:
    """A failed expectation fails the test and says by which number."""
    with ScriptedOllama() as server:
        server.queue("/api/chat", [Status(500, {"error": "no"})])
        result = run(
            pytester,
            server,
            """
@pytest.mark.objective("errors == 0", "requests == 2")
def test_errors():
    with pytest.raises(ollama.ResponseError):
        ask()
    ask()
""",
        )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["errors == 0: failed_reqs of llama3.2 is 1"])
    result.stdout.no_fnmatch_line("*requests == 2: *")


def test_no_data_is_no_success(pytester: pytest.Pytester) -> None:
    """A test that made no calls keeps no promise."""
    with ScriptedOllama() as server:
        result = run(
            pytester,
            server,
            """
@pytest.mark.objective("errors == 0")
def test_idle():
    pass
""",
        )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["errors == 0: nothing is known of failed_reqs", "*test_idle: no call was seen"]
    )


def test_a_test_that_fails_by_itself_fails_by_that(pytester: pytest.Pytester) -> None:
    """The marker adds nothing to a failure of the test's own."""
    with ScriptedOllama() as server:
        result = run(
            pytester,
            server,
            """
@pytest.mark.objective("errors == 0")
def test_wrong():
    ask()
    assert False, "of its own"
""",
        )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*of its own*", "*test_wrong: llama3.2 1 requests*"])


def test_a_bad_expectation_stops_the_run(pytester: pytest.Pytester) -> None:
    """A marker that means nothing is a wrong use, with the nearest right name."""
    with ScriptedOllama() as server:
        result = run(
            pytester,
            server,
            """
@pytest.mark.objective("latencyy.p95 < 2s")
def test_never_run():
    pass
""",
        )

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["*test_never_run: there is no metric 'latencyy.p95'*"])
