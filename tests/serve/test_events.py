"""The feed: nobody is kept waiting, and nobody hears what is not theirs."""

import asyncio
import threading

from entracte.serve.events import Feed, News


def test_a_slow_listener_gets_the_newest_of_each() -> None:
    async def listen() -> list[News]:
        feed = Feed()
        with feed.listening(lambda news: news.owner == "ann") as listener:
            for step in range(1000):
                feed.tell(News("preview", "a", "ann", b"x", step))
                feed.tell(News("video", "b", "bob"))
            feed.tell(News("video", "a", "ann"))
            await asyncio.sleep(0)
            return await listener.hear(1)

    heard = asyncio.run(listen())
    assert [(news.kind, news.video_id) for news in heard] == [("preview", "a"), ("video", "a")]
    assert heard[0].step == 999


def test_from_another_thread_and_quiet_and_closed() -> None:
    async def listen() -> None:
        feed = Feed()
        with feed.listening(lambda _: True) as listener:
            assert await listener.hear(0.01) == []
            threading.Thread(target=feed.tell, args=(News("engine"),)).start()
            assert [news.kind for news in await listener.hear(5)] == ["engine"]
            threading.Thread(target=feed.close).start()
            assert await listener.hear(5) == []
            assert listener.closed
        feed.tell(News("engine"))
        assert await listener.hear(0.01) == []

    asyncio.run(listen())


def test_after_the_loop_nobody_is_told() -> None:
    feed = Feed()

    async def leave() -> None:
        with feed.listening(lambda _: True) as listener:
            listener.put(News("engine"))
            kept.append(listener)

    kept: list = []
    asyncio.run(leave())
    kept[0].put(News("engine"))
    kept[0].close()
