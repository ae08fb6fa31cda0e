"""What the page's doorkeeper lets through, on an application that stands for Gradio's."""

import asyncio
import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
JOIN, DATA = "/gradio_api/queue/join", "/gradio_api/queue/data"


@pytest.fixture(scope="module")
def doorkeeper():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import doorkeeper

        yield doorkeeper


class Queue:
    """Takes every question; a stream answers what it is told to, until the visitor leaves."""

    def __init__(self, status=200):
        self.status = status
        self.places = []
        self.asked = []
        self.answers = asyncio.Queue()

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        if scope["path"] == JOIN:
            message = await receive()
            self.places.append(json.loads(message["body"])["session_hash"])
        if scope["path"] == DATA:
            session = scope["query_string"].decode().partition("=")[2]
            while True:
                leaving = asyncio.ensure_future(receive())
                answer = asyncio.ensure_future(self.answers.get())
                done, _ = await asyncio.wait({leaving, answer}, return_when=asyncio.FIRST_COMPLETED)
                if leaving in done:
                    answer.cancel()
                    self.places = [place for place in self.places if place != session]
                    return
                leaving.cancel()
                self.places.remove(session)
                await send({"type": "http.response.body", "body": answer.result()})
        await send({"type": "http.response.body", "body": b"ok"})


async def request(app, method, path, body=b"", query=b"", address="10.0.0.1", leave=None):
    """The status and the body of an answer."""
    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    scope["client"] = (address, 1234)
    parts = [body[:100], body[100:]]
    said = []

    async def receive():
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await (leave or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    if not body and method == "GET":
        parts.clear()
    await app(scope, receive, send)
    return said[0]["status"], b"".join(message.get("body", b"") for message in said).decode()


def join(app, session, address="10.0.0.1", **other):
    question = {"fn_index": 0, "session_hash": session, "data": [], **other}
    return request(app, "POST", JOIN, json.dumps(question).encode(), address=address)


def test_only_what_the_page_sends_goes_through(doorkeeper):
    async def run():
        queue = Queue()
        app = doorkeeper.Doorkeeper(queue, 3, max_request=1000)
        for method, path in (
            ("POST", "/gradio_api/run/invent"),
            ("POST", "/gradio_api/call/invent"),
            ("POST", "/gradio_api/component_server"),
            ("DELETE", "/"),
            ("GET", "/gradio_api/openapi.json"),
            ("GET", "/gradio_api/proxy=http://elsewhere"),
        ):
            status, body = await request(app, method, path)
            assert status == 404 and f"at {path}" in body
        status, body = await request(app, "POST", JOIN, bytes(1001))
        assert (status, body) == (413, '{"detail": "Expected at most 1000 bytes."}')
        assert not queue.asked
        for method, path in (("GET", "/"), ("HEAD", "/config"), ("POST", "/gradio_api/upload")):
            assert (await request(app, method, path, b"x")) == (200, "ok")
        assert await join(app, "me") == (200, "ok")
        assert queue.places == ["me"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "Expected JSON"),
        (b"[" * 100_000, "Expected JSON"),
        (b"[]", "Expected a JSON object"),
        (b"{}", "session_hash"),
        (b'{"session_hash": "../x"}', "letters and digits"),
        (b'{"session_hash": "%s"}' % (b"x" * 65), "at most 64"),
        (b'{"session_hash": "x", "fn_index": 3, "data": []}', "below 3"),
        (b'{"session_hash": "x", "fn_index": -1, "data": []}', "below 3"),
        (b'{"session_hash": "x", "fn_index": true, "data": []}', "below 3"),
        (b'{"session_hash": "x", "fn_index": 0, "data": {}}', "Expected data"),
    ],
)
def test_questions_that_are_none(doorkeeper, body, sentence):
    queue = Queue()
    status, answer = asyncio.run(request(doorkeeper.Doorkeeper(queue, 3), "POST", JOIN, body))
    assert status == 400 and sentence in answer and not queue.asked


def test_who_does_not_listen_loses_the_places(doorkeeper):
    async def run():
        queue = Queue()
        app = doorkeeper.Doorkeeper(queue, 3, most_silent=2, grace=0.05)
        assert [(await join(app, name))[0] for name in "abc"] == [200, 200, 429]
        assert (await join(app, "d", address="10.0.0.2"))[0] == 200
        left = asyncio.Event()
        listening = asyncio.ensure_future(
            request(app, "GET", DATA, query=b"session_hash=a", leave=left)
        )
        await asyncio.sleep(0.2)
        assert queue.places == ["a"]
        assert (await join(app, "c"))[0] == 200
        left.set()
        await listening
        assert queue.places == ["c"]

    asyncio.run(run())


def test_a_visitor_has_few_requests_at_a_time(doorkeeper):
    async def run():
        queue = Queue()
        app = doorkeeper.Doorkeeper(queue, 3, most_waiting=2)
        left = asyncio.Event()
        assert [(await join(app, "a"))[0] for _ in range(3)] == [200, 200, 429]
        listening = asyncio.ensure_future(
            request(app, "GET", DATA, query=b"session_hash=a", leave=left)
        )
        await queue.answers.put(b'data: {"msg":"process_completed"}')
        await asyncio.sleep(0.05)
        assert [(await join(app, "a"))[0] for _ in range(2)] == [200, 429]
        left.set()
        await listening
        assert [(await join(app, "a"))[0] for _ in range(3)] == [200, 200, 429]

    asyncio.run(run())


def test_what_the_queue_refuses_is_not_counted(doorkeeper):
    async def run():
        app = doorkeeper.Doorkeeper(Queue(status=503), 3, most_waiting=1)
        assert [(await join(app, "a"))[0] for _ in range(3)] == [503] * 3

    asyncio.run(run())
