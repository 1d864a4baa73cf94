"""Coroutines without tasks of their own end as they would in tasks, whatever they wait for and
whoever cancels them when."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import random
import sys
import unittest
from pathlib import Path
from typing import Any, Callable, Coroutine, Dict, List, Optional, Tuple

sys.path.insert(
    0, os.environ.get("RSERVE_PYRUNTIME") or str(Path(__file__).parents[2] / "sched/pyruntime")
)
from rserve._drive import PARKED, Driver, News  # noqa: E402

Outcome = Tuple[str, Any]
Code = Callable[["World"], Coroutine[Any, Any, Any]]

variable: "contextvars.ContextVar[int]" = contextvars.ContextVar("variable", default=-1)


class Call:
    """What a Driver needs of a call."""

    def __init__(self) -> None:
        self.task: "Optional[asyncio.Task[Any]]" = None
        self.cancelled = False
        self.outcome: Optional[Outcome] = None


class Link:
    """Plays the connection: what it reads is looked at in one callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def resume(self, function: Callable[[Any], None], argument: Any) -> None:
        self.loop.call_soon(function, argument)


class World:
    """The same for both ways to run a coroutine."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.link: Any = Link(self.loop)
        self.notes: List[Any] = []
        self.futures: List[Any] = []
        self.news: List[News] = []

    def future(self) -> "asyncio.Future[Any]":
        self.futures.append(self.loop.create_future())
        future: "asyncio.Future[Any]" = self.futures[-1]
        return future

    def call_news(self) -> News:
        self.news.append(News(self.link, self.loop))
        return self.news[-1]

    def give(self) -> None:
        """Something comes from outside."""
        for future in self.futures:
            if not future.done():
                future.set_result("given")
        for news in self.news:
            news.wake()


async def nothing(world: World) -> Any:
    return 1


async def turns(world: World) -> Any:
    for _ in range(3):
        await asyncio.sleep(0)
    return "turned"


async def waits(world: World) -> Any:
    return [await world.future(), await world.future()]


async def hears(world: World) -> Any:
    await world.call_news()
    await asyncio.sleep(0)
    await world.call_news()
    return "heard"


async def gathers(world: World) -> Any:
    async def one(n: int) -> int:
        await asyncio.sleep(0)
        if n % 2:
            await world.call_news()
        return n

    return await asyncio.gather(*[one(i) for i in range(4)])


async def fails(world: World) -> Any:
    future: "asyncio.Future[None]" = world.loop.create_future()
    world.loop.call_soon(lambda: future.done() or future.set_exception(ValueError("as told")))
    try:
        await future
    except ValueError:
        world.notes.append("caught")
    await world.call_news()
    raise KeyError("last")


async def cleans_up(world: World) -> Any:
    try:
        await world.call_news()
        await world.future()
    except asyncio.CancelledError:
        world.notes.append("cancelled")
        await asyncio.sleep(0)
        raise
    finally:
        await asyncio.sleep(0)
        world.notes.append("cleaned")


async def swallows(world: World) -> Any:
    try:
        await world.future()
    except asyncio.CancelledError:
        world.notes.append("swallowed")
    await world.call_news()
    return "went on"


async def cancels_itself(world: World) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    world.notes.append("still runs")
    await world.call_news()
    return "not reached"


async def cancels_itself_last(world: World) -> Any:
    await world.call_news()
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "too late"


async def times_out(world: World) -> Any:
    try:
        await asyncio.wait_for(world.loop.create_future(), 0.001)
    except asyncio.TimeoutError:
        world.notes.append("timeout")
    await world.call_news()
    return "done"


async def times_out_here(world: World) -> Any:
    timeout = getattr(asyncio, "timeout", None)
    if timeout is None:
        return "timeout"
    try:
        async with timeout(0.001):
            await world.loop.create_future()
    except asyncio.TimeoutError:
        await world.call_news()
        return "timeout"


async def shields(world: World) -> Any:
    return await asyncio.shield(world.future())


async def awaits_nonsense(world: World) -> Any:
    class Nonsense:
        def __await__(self) -> Any:
            yield 7

    await asyncio.sleep(0)
    try:
        await Nonsense()
    except RuntimeError as e:
        world.notes.append(str(e).partition(":")[0])
    await world.call_news()
    return "survived"


async def awaits_itself(world: World) -> Any:
    await asyncio.sleep(0)
    try:
        await asyncio.current_task()  # type: ignore[misc]
    except RuntimeError:
        return "refused"


async def knows_its_task(world: World) -> Any:
    first = asyncio.current_task()
    await asyncio.sleep(0)
    await world.call_news()
    await world.future()
    return first is not None and first is asyncio.current_task()


async def has_a_context(world: World) -> Any:
    seen = [variable.get()]
    variable.set(7)
    await asyncio.sleep(0)
    seen.append(variable.get())
    await world.call_news()
    seen.append(variable.get())

    async def inner() -> int:
        return variable.get()

    seen.append(await asyncio.ensure_future(inner()))
    return seen


CODES: List[Code] = [
    nothing,
    turns,
    waits,
    hears,
    gathers,
    fails,
    cleans_up,
    swallows,
    cancels_itself,
    cancels_itself_last,
    times_out,
    times_out_here,
    shields,
    awaits_nonsense,
    awaits_itself,
    knows_its_task,
    has_a_context,
]


def _context(number: int) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(variable.set, number)
    return context


def _outcome(error: Optional[BaseException], value: Any) -> Outcome:
    return ("value", value) if error is None else (type(error).__name__, str(error))


class Both(unittest.TestCase):
    async def under_task(self, code: Code, cancel_at: int) -> Tuple[Any, Any]:
        world = World()
        task: "asyncio.Task[Any]" = _context(5).run(world.loop.create_task, code(world))
        await self.play(world, task.done, lambda: task, cancel_at)
        try:
            got = _outcome(None, task.result())
        except BaseException as e:
            got = _outcome(e, None)
        return got, world.notes

    async def under_driver(self, code: Code, cancel_at: int, driver: Driver) -> Tuple[Any, Any]:
        world = World()
        call: Any = Call()
        context = _context(5)
        world.loop.call_soon(lambda: driver.start(call, code(world), context))
        await self.play(world, lambda: call.outcome is not None, lambda: call.task, cancel_at)
        return call.outcome, world.notes

    async def play(
        self, world: World, done: Callable[[], bool], task: Callable[[], Any], cancel_at: int
    ) -> None:
        """Cancels after so many turns; from then on things come from outside."""
        turn = 0
        while not done():
            await asyncio.sleep(0)
            turn += 1
            if turn == cancel_at and task() is not None:
                task().cancel()
            if turn > max(cancel_at, 3) and turn % 2:
                world.give()
            if turn > 50:
                await asyncio.sleep(0.0005)  # for those that wait for time to pass
            assert turn < 5000, "it never ends"

    def driver(self) -> Driver:
        def done(call: Any, value: Any) -> Any:
            call.outcome = _outcome(None, value)

        def failed(call: Any, error: BaseException) -> None:
            call.outcome = _outcome(error, None)

        return Driver(asyncio.get_running_loop(), done, failed)

    def test_as_in_a_task(self) -> None:
        async def main() -> None:
            driver = self.driver()
            await asyncio.sleep(0)
            for code in CODES:
                if code is cancels_itself_last:
                    continue  # its value is there: it counts
                with self.subTest(code.__name__):
                    self.assertEqual(
                        await self.under_driver(code, 0, driver), await self.under_task(code, 0)
                    )

        asyncio.run(main())

    def test_cancelled_at_any_time(self) -> None:
        """What is cancelled ends as cancelled, or as its code says; and those after it are well."""

        async def main() -> None:
            driver = self.driver()
            await asyncio.sleep(0)
            for code in CODES:
                if code in (awaits_nonsense, awaits_itself, cancels_itself_last):
                    continue  # which error comes first is nobody's business
                for turn in range(1, 7):
                    with self.subTest(f"{code.__name__}, cancelled in turn {turn}"):
                        got = await self.under_driver(code, turn, driver)
                        # a task begins a turn later than a driven coroutine; either is well
                        want = [await self.under_task(code, n) for n in (turn, turn + 1, 0)]
                        self.assertIn(got, want)
                        again = await self.under_driver(hears, 0, driver)
                        self.assertEqual(again, (("value", "heard"), []))

        asyncio.run(main())

    def test_many_at_once(self) -> None:
        """In any order and number, some cancelled: each ends once, and tasks are used again."""
        for seed in range(20):
            rng = random.Random(seed)

            async def main() -> Dict[int, int]:
                ended: Dict[int, int] = {}
                loop = asyncio.get_running_loop()

                def done(call: Any, value: Any) -> Any:
                    ended[id(call)] = ended.get(id(call), 0) + 1

                def failed(call: Any, error: BaseException) -> None:
                    self.assertNotIsInstance(error, AssertionError)
                    done(call, None)

                driver = Driver(loop, done, failed)
                worlds, calls = [], []
                for _ in range(60):
                    world = World()
                    worlds.append(world)
                    for _ in range(rng.choice((0, 1, 3, 40))):
                        call: Any = Call()
                        calls.append(call)
                        coro = rng.choice(CODES)(world)
                        loop.call_soon(driver.start, call, coro, _context(1))
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    if calls and rng.random() < 0.5:
                        victim = rng.choice(calls)
                        if victim.task is not None:
                            victim.task.cancel()
                    rng.choice(worlds).give()
                while len(ended) < len(calls):
                    await asyncio.sleep(0.0005)
                    for world in worlds:
                        world.give()
                for _ in range(5):
                    await asyncio.sleep(0)
                self.assertLessEqual(len(driver._free), PARKED)
                self.assertEqual(len(driver._free), len(driver._tasks))
                return ended

            ended = asyncio.run(main())
            self.assertEqual(set(ended.values()), {1}, f"seed {seed}")

    def test_tasks_are_used_again_unless_somebody_has_them(self) -> None:
        async def main() -> None:
            driver = self.driver()
            kept = []

            async def keeps(world: World) -> None:
                kept.append(asyncio.current_task())
                await world.call_news()

            await asyncio.sleep(0)
            for _ in range(5):
                await self.under_driver(hears, 0, driver)
            first = set(driver._tasks)
            await self.under_driver(hears, 0, driver)
            self.assertEqual(first, set(driver._tasks))
            await self.under_driver(keeps, 0, driver)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.assertTrue(kept[0].done())
            self.assertNotIn(kept[0], driver._tasks)
            kept[0].cancel()  # harmless
            self.assertEqual((await self.under_driver(hears, 0, driver))[0], ("value", "heard"))

        asyncio.run(main())

    def test_nothing_is_left_behind(self) -> None:
        class Marker:
            pass

        async def main() -> int:
            driver = self.driver()

            async def holds(world: World) -> None:
                marker = Marker()
                variable.set(marker)  # type: ignore[arg-type]
                await world.call_news()
                await asyncio.sleep(0)
                del marker

            await asyncio.sleep(0)
            for _ in range(10):
                await self.under_driver(holds, 0, driver)
                await self.under_driver(holds, 2, driver)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()
            return sum(isinstance(o, Marker) for o in gc.get_objects())

        self.assertEqual(asyncio.run(main()), 0)


if __name__ == "__main__":
    unittest.main()
