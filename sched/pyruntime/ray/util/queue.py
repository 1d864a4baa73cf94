"""A first-in, first-out queue that processes of the cluster share: an actor of its own."""

from __future__ import annotations

import asyncio
import queue
from typing import Any, Dict, Iterable, List, Optional


class Empty(queue.Empty):
    """The queue has nothing (in time)."""


class Full(queue.Full):
    """The queue has no room (in time)."""


class Queue:
    """Like `queue.Queue`; the handle can be passed to tasks, actors and deployments.

    `maxsize` 0 is no limit; `actor_options` are those of the actor that holds the items.
    """

    def __init__(self, maxsize: int = 0, actor_options: Optional[Dict[str, Any]] = None) -> None:
        import ray

        self.maxsize = maxsize
        options = dict(actor_options or {})
        self.actor: Any = ray.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        import ray

        size: int = ray.get(self.actor.qsize.remote())
        return size

    def qsize(self) -> int:
        return self.size()

    def empty(self) -> bool:
        import ray

        return bool(ray.get(self.actor.empty.remote()))

    def full(self) -> bool:
        import ray

        return bool(ray.get(self.actor.full.remote()))

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        """Raises Full when there is no room (within `timeout` seconds)."""
        import ray

        if not block:
            self.put_nowait(item)
            return
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        ray.get(self.actor.put.remote(item, timeout))

    async def put_async(
        self, item: Any, block: bool = True, timeout: Optional[float] = None
    ) -> None:
        if not block:
            await self.actor.put_nowait.remote(item)
            return
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        await self.actor.put.remote(item, timeout)

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """Raises Empty when there is nothing (within `timeout` seconds)."""
        import ray

        if not block:
            return self.get_nowait()
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        return ray.get(self.actor.get.remote(timeout))

    async def get_async(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        if not block:
            return await self.actor.get_nowait.remote()
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        return await self.actor.get.remote(timeout)

    def put_nowait(self, item: Any) -> None:
        import ray

        try:
            ray.get(self.actor.put_nowait.remote(item))
        except Full:
            raise Full from None

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """All of them, or Full and none."""
        import ray

        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        ray.get(self.actor.put_nowait_batch.remote(list(items)))

    def get_nowait(self) -> Any:
        import ray

        try:
            return ray.get(self.actor.get_nowait.remote())
        except Empty:
            raise Empty from None

    def get_nowait_batch(self, num_items: int) -> List[Any]:
        """Exactly so many, or Empty and none."""
        import ray

        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        items: List[Any] = ray.get(self.actor.get_nowait_batch.remote(num_items))
        return items

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """Ends the actor: after what it has to do, or at once with `force`."""
        import ray

        if self.actor:
            if not force:
                done = self.actor.__ray_ready__.remote()
                ray.wait([done], timeout=grace_period_s)
            ray.kill(self.actor, no_restart=True)
        self.actor = None


class _QueueActor:
    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: "asyncio.Queue[Any]" = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    def empty(self) -> bool:
        return self.queue.empty()

    def full(self) -> bool:
        return self.queue.full()

    async def put(self, item: Any, timeout: Optional[float] = None) -> None:
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except asyncio.TimeoutError:
            raise Full from None

    async def get(self, timeout: Optional[float] = None) -> Any:
        try:
            return await asyncio.wait_for(self.queue.get(), timeout)
        except asyncio.TimeoutError:
            raise Empty from None

    def put_nowait(self, item: Any) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            raise Full from None

    def put_nowait_batch(self, items: List[Any]) -> None:
        if self.maxsize > 0 and len(items) + self.qsize() > self.maxsize:
            raise Full(
                f"Cannot add {len(items)} items to queue of size {self.qsize()} and maxsize "
                f"{self.maxsize}."
            )
        for item in items:
            self.queue.put_nowait(item)

    def get_nowait(self) -> Any:
        try:
            return self.queue.get_nowait()
        except asyncio.QueueEmpty:
            raise Empty from None

    def get_nowait_batch(self, num_items: int) -> List[Any]:
        if num_items > self.qsize():
            raise Empty(f"Cannot get {num_items} items from queue of size {self.qsize()}.")
        return [self.queue.get_nowait() for _ in range(num_items)]
