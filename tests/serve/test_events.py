"""The event bus: no publisher waits, and no subscriber gets what is not theirs."""

import asyncio
import threading

from entracte.serve.events import EventBus, ServerEvent


def test_a_slow_subscriber_gets_the_newest_of_each() -> None:
    async def listen() -> list[ServerEvent]:
        bus = EventBus()
        with bus.subscribe(lambda event: event.owner == "ann") as subscriber:
            for step in range(1000):
                bus.publish(ServerEvent("preview", "a", "ann", b"x", step))
                bus.publish(ServerEvent("video", "b", "bob"))
            bus.publish(ServerEvent("video", "a", "ann"))
            await asyncio.sleep(0)
            return await subscriber.receive(1)

    received = asyncio.run(listen())
    assert [(event.kind, event.video_id) for event in received] == [
        ("preview", "a"),
        ("video", "a"),
    ]
    assert received[0].step == 999


def test_from_another_thread_and_quiet_and_closed() -> None:
    async def listen() -> None:
        bus = EventBus()
        with bus.subscribe(lambda _: True) as subscriber:
            assert await subscriber.receive(0.01) == []
            threading.Thread(target=bus.publish, args=(ServerEvent("engine"),)).start()
            assert [event.kind for event in await subscriber.receive(5)] == ["engine"]
            threading.Thread(target=bus.close).start()
            assert await subscriber.receive(5) == []
            assert subscriber.closed
        bus.publish(ServerEvent("engine"))
        assert await subscriber.receive(0.01) == []

    asyncio.run(listen())


def test_after_the_loop_nobody_is_told() -> None:
    bus = EventBus()

    async def leave() -> None:
        with bus.subscribe(lambda _: True) as subscriber:
            subscriber.put(ServerEvent("engine"))
            kept.append(subscriber)

    kept: list = []
    asyncio.run(leave())
    kept[0].put(ServerEvent("engine"))
    kept[0].close()
