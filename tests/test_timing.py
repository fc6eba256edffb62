# SPDX-License-Identifier: MIT
"""`time()`: as a block and as a decorator, of everything that can be called."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ometrics import ErrorTimeout, MetricsCollector, OllamaError
from ometrics.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves when told to."""
    return FakeClock()


@pytest.fixture
def mc(clock: FakeClock) -> MetricsCollector:
    """A collector that reads it."""
    return MetricsCollector(clock=clock)


def told(mc: MetricsCollector) -> tuple[int, dict[str, int], float | None]:
    """Successes, errors by code, and the longest latency of model `m`."""
    metrics = mc.get_model_metrics("m")
    if metrics is None:
        return 0, {}, None
    return metrics.successful_reqs, metrics.errors, metrics.max_latency


class TestBlock:
    """`with mc.time(model):`."""

    def test_success(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """The elapsed monotonic time; a step of the wall clock does not matter."""
        with mc.time("m"):
            clock.advance(1.5)
            clock.step_wall(-3600)

        assert (1, {}, 1.5) == told(mc)

    def test_real_clock(self) -> None:
        """Without a clock of one's own, the system's."""
        mc = MetricsCollector()
        with mc.time("m"):
            pass

        successes, _, longest = told(mc)

        assert 1 == successes
        assert longest is not None
        assert 0 < longest < 60

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ErrorTimeout("x"), "TIMEOUT"),
            (ZeroDivisionError(), "ZeroDivisionError"),
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            (asyncio.CancelledError(), "CancelledError"),
        ],
    )
    def test_failure(
        self, mc: MetricsCollector, error: BaseException, code: str
    ) -> None:
        """The exception is counted, and passes through unchanged."""
        with pytest.raises(type(error)) as caught, mc.time("m"):
            raise error

        assert error is caught.value
        assert error.__context__ is None
        assert (0, {code: 1}, None) == told(mc)

    @pytest.mark.parametrize("code", [404, None, ["unhashable"], "x" * 999])
    def test_strange_code(self, mc: MetricsCollector, code: Any) -> None:
        """Whatever the caller's exception is like, it is what the caller sees."""
        error = OllamaError(code, "strange")
        with pytest.raises(OllamaError) as caught, mc.time("m"):
            raise error

        assert error is caught.value
        assert 1 == sum(told(mc)[1].values())

    def test_nested(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Timers of one model within each other are each their own."""
        with mc.time("m"):
            clock.advance(1)
            with mc.time("m"):
                clock.advance(2)

        assert (2, {}, 3.0) == told(mc)

    def test_again(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """A timer may be used again."""
        timer = mc.time("m")
        for _ in range(3):
            with timer:
                clock.advance(1)

        assert (3, {}, 1.0) == told(mc)

    def test_async(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """`async with` does the same."""

        async def work() -> None:
            async with mc.time("m"):
                clock.advance(2)
            with pytest.raises(LookupError):
                async with mc.time("m"):
                    raise LookupError

        asyncio.run(work())

        assert (1, {"LookupError": 1}, 2.0) == told(mc)

    def test_model_is_a_string(self, mc: MetricsCollector) -> None:
        """Anything else is refused before the block begins."""
        with pytest.raises(TypeError):
            mc.time(None)  # type: ignore[arg-type]


class TestDecorator:
    """`@mc.time(model)`."""

    def test_function(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Arguments, result and name are the function's; each call counts."""

        @mc.time("m")
        def double(x: int, *, times: int = 2) -> int:
            """Multiply."""
            clock.advance(times)
            return x * times

        assert (6, 9) == (double(3), double(3, times=3))
        assert ("double", "Multiply.") == (double.__name__, double.__doc__)
        assert "(x: 'int', *, times: 'int' = 2) -> 'int'" == str(
            inspect.signature(double)
        )
        assert (2, {}, 3.0) == told(mc)

    def test_exception(self, mc: MetricsCollector) -> None:
        """An exception passes through, and counts."""

        @mc.time("m")
        def fail() -> None:
            raise ErrorTimeout

        with pytest.raises(ErrorTimeout):
            fail()

        assert (0, {"TIMEOUT": 1}, None) == told(mc)

    def test_recursion(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """A function that calls itself has one timer a call."""

        @mc.time("m")
        def down(n: int) -> None:
            clock.advance(1)
            if n:
                down(n - 1)

        down(2)

        assert (3, {}, 3.0) == told(mc)

    def test_coroutine_function(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Timed while it is awaited; concurrent calls do not disturb each other."""

        @mc.time("m")
        async def work(seconds: float) -> float:
            await asyncio.sleep(0)
            clock.advance(seconds)
            if seconds == 3:
                raise LookupError
            return seconds

        async def all_of_it() -> list[Any]:
            return await asyncio.gather(
                *(work(i) for i in range(1, 4)), return_exceptions=True
            )

        assert inspect.iscoroutinefunction(work)
        assert [1, 2] == asyncio.run(all_of_it())[:2]
        # each of the two saw the other's time pass too, none saw less than its own
        assert 2 == told(mc)[0]
        assert {"LookupError": 1} == told(mc)[1]

    def test_cancelled_coroutine(self, mc: MetricsCollector) -> None:
        """Cancelling passes through, and counts as what it is."""

        @mc.time("m")
        async def wait() -> None:
            await asyncio.sleep(60)

        async def cancel() -> None:
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())

        assert (0, {"CancelledError": 1}, None) == told(mc)

    def test_generator(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Timed to its end; values go both ways, the result comes out."""

        @mc.time("m")
        def talk() -> Iterator[Any]:
            clock.advance(1)
            got = yield "first"
            clock.advance(1)
            try:
                yield got
            except KeyError:
                yield "caught"
            return "result"

        generator: Any = talk()

        assert inspect.isgeneratorfunction(talk)
        assert "first" == next(generator)
        assert "sent" == generator.send("sent")
        assert "caught" == generator.throw(KeyError("x"))
        assert 0 == told(mc)[0]
        with pytest.raises(StopIteration) as end:
            next(generator)

        assert "result" == end.value.value
        assert (1, {}, 2.0) == told(mc)

    def test_generator_that_is_left(self, mc: MetricsCollector) -> None:
        """A reader that stops early has not failed, and counts once."""

        @mc.time("m")
        def count() -> Iterator[int]:
            yield from range(10)

        for _ in count():
            break
        gc.collect()

        metrics = mc.get_model_metrics("m")

        assert metrics is not None
        assert 1 == metrics.total_requests

    def test_async_generator(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Timed to its end; it is closed with its reader."""
        ended = []

        @mc.time("m")
        async def count() -> AsyncIterator[int]:
            try:
                for i in range(3):
                    clock.advance(1)
                    yield i
            finally:
                ended.append(True)

        async def read() -> list[int]:
            return [i async for i in count()]

        async def leave() -> None:
            generator: Any = count()
            async for _ in generator:
                break
            await generator.aclose()

            assert 2 == len(ended)  # at once, not when the garbage is collected

        assert inspect.isasyncgenfunction(count)
        assert [0, 1, 2] == asyncio.run(read())
        assert (1, {}, 3.0) == told(mc)

        asyncio.run(leave())

    def test_method_and_partial(self, mc: MetricsCollector) -> None:
        """Methods get their object; partials and callables work."""

        class Agent:
            @mc.time("m")
            def me(self) -> Agent:
                return self

            def __call__(self) -> str:
                return "called"

        agent = Agent()

        assert agent is agent.me()
        assert 5 == mc.time("m")(functools.partial(max, 5))(3)
        assert "called" == mc.time("m")(agent)()
        assert 3 == told(mc)[0]

    def test_bound_recorder(self, mc: MetricsCollector) -> None:
        """A bound recorder's timer decorates too."""

        @mc.model("m").time()
        def nothing() -> None:
            """Do nothing."""

        nothing()
        mc.reset_metrics()
        nothing()

        assert 1 == told(mc)[0]
