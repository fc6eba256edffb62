# SPDX-License-Identifier: MIT
"""A plugin of pytest: what a test asked of models, and what it must have been.

    @pytest.mark.objective("latency.p95 < 2s", "errors == 0")
    def test_agent(ometrics):
        run_my_agent()
        assert ometrics.snapshot().total_requests == 3

The fixture `ometrics` is a collector of the test's own, to which every call of the
`ollama` and `openai` clients goes while the test runs. A test with the marker has it
without asking. The summary in the terminal has a line for each such test.

pytest loads this by itself where ometrics is installed, and what it needs when a test
uses it. `-p no:ometrics` leaves it out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from ometrics.view.escape import harmless

if TYPE_CHECKING:
    from ometrics import MetricsCollector, Snapshot
    from ometrics.rules.limits import Expectation

_COLLECTOR: Final = pytest.StashKey["MetricsCollector"]()
_CLIENTS: Final = ("ollama", "openai")
_MARKER: Final = "objective"
_PROPERTY: Final = "ometrics"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(*expectations): what must hold of the model calls of this test,"
        ' such as "latency.p95 < 2s" (ometrics)',
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test with the marker is measured, and its expectations are read at once."""
    if item.get_closest_marker(_MARKER) is None:
        return
    names = getattr(item, "fixturenames", None)
    if names is not None and "ometrics" not in names:
        names.append("ometrics")
    try:
        _expectations(item)
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


@pytest.fixture(name="ometrics")
def _ometrics(request: pytest.FixtureRequest) -> Iterator[MetricsCollector]:
    """A collector that sees every call of the ollama and openai clients in the test."""
    import ometrics

    collector = ometrics.MetricsCollector()
    rooms = [
        importlib.import_module(f"ometrics.{name}")
        for name in _CLIENTS
        if importlib.util.find_spec(name) is not None
    ]
    for room in rooms:
        room.instrument(collector)
    request.node.stash[_COLLECTOR] = collector
    try:
        yield collector
    finally:
        for room in rooms:
            room.uninstrument(collector)
        collector.close()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Hold the test's calls against its marker, once it has passed by itself."""
    try:
        result = yield
    finally:
        snapshot = _snapshot(pyfuncitem)
        if snapshot is not None and (snapshot.models or _is_marked(pyfuncitem)):
            pyfuncitem.user_properties.append((_PROPERTY, _line(snapshot)))
    if snapshot is not None and (failures := _failures(pyfuncitem, snapshot)):
        pytest.fail("\n".join(failures), pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each test that was measured, in whichever process it ran."""
    measured = [
        (report, line)
        for outcome in ("failed", "passed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, line in getattr(report, "user_properties", [])
        if name == _PROPERTY and report.when == "call"
    ]
    if measured:
        terminalreporter.section("ometrics")
    for report, line in measured:
        terminalreporter.write_line(
            f"{report.nodeid}: {line}", green=report.passed, red=report.failed
        )


def _expectations(item: pytest.Item) -> list[Expectation]:
    """What the markers of a test say, the nearest last."""
    from ometrics.rules.limits import expect

    markers = [*item.iter_markers(_MARKER)]
    return [expect(text) for marker in reversed(markers) for text in marker.args]


def _snapshot(item: pytest.Item) -> Snapshot | None:
    collector = item.stash.get(_COLLECTOR, None)
    return None if collector is None else collector.snapshot()


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker(_MARKER) is not None


def _failures(item: pytest.Item, snapshot: Snapshot) -> list[str]:
    """A line for everything that is not as the markers say."""
    if not _is_marked(item):
        return []
    from ometrics.rules.check import check
    from ometrics.rules.words import amount

    lines = []
    for result in check(_expectations(item), snapshot):
        of = f" of {harmless(result.model)}" if result.model else ""
        if result.verdict == "missing":
            lines.append(f"{result.name}: nothing is known of {result.metric}{of}")
        elif result.verdict == "failed":
            value = amount(result.value, result.unit)
            lines.append(f"{result.name}: {result.metric}{of} is {value}")
    return lines


def _line(snapshot: Snapshot) -> str:
    """A test's calls in one line."""
    from ometrics.view.units import duration

    models = [
        f"{harmless(name)} {model.total_requests} requests,"
        f" {model.failed_reqs} failed, p95 {duration(model.latency_p95)}"
        for name, model in snapshot.models.items()
    ]
    return "; ".join(models) or "no call was seen"
