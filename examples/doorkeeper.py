"""What stands between the network and the page of app.py: who may ask what, and how often."""

import asyncio
import collections
import contextlib
import json

API = "/gradio_api"
# What the page itself sends. Gradio answers more: calls of functions past the queue among them.
POSTS = {f"{API}/{name}" for name in ("queue/join", "upload", "cancel", "reset")}
NOT_READ = tuple(
    f"{API}/{name}" for name in ("proxy=", "call/", "run", "vibe", "dev/", "openapi.json", "info")
)
COMPLETED = b'"process_completed"'


class Doorkeeper:
    """ASGI middleware that answers in a sentence what the page would not ask.

    A visitor is a session of Gradio's: it asks by `queue/join` and hears by `queue/data`. Who asks
    and does not listen would keep a place in the queue until its turn, and take the turn. Here

    - a visitor has `most_waiting` requests at a time that are not answered yet;
    - an address has `most_silent` visitors who have asked and do not listen;
    - who has not listened for `grace` seconds after asking loses its places.

    Args:
        app: ASGI application, Gradio's.
        num_functions: Positive integer, what the page may ask for; Gradio numbers it from 0.
        most_waiting: Positive integer.
        most_silent: Positive integer.
        grace: Positive float, seconds.
        max_request: Positive integer, bytes of a request other than an upload.
    """

    def __init__(
        self, app, num_functions, most_waiting=8, most_silent=8, grace=10.0, max_request=2**20
    ):
        self.app = app
        self.num_functions = num_functions
        self.most_waiting = most_waiting
        self.most_silent = most_silent
        self.grace = grace
        self.max_request = max_request
        self.waiting = collections.Counter()  # of a session: asked and not answered
        self.listening = collections.Counter()  # of a session: open streams
        self.silent = {}  # sessions that have asked and not listened yet: their address
        self.tasks = set()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"].rstrip("/") or "/"
        asks = method == "POST" and path == f"{API}/queue/join"
        if method not in ("GET", "HEAD") and not (method == "POST" and path in POSTS):
            await answer(send, 404, f"The page has nothing to {method} at {path}.")
        elif path.startswith(NOT_READ):
            await answer(send, 404, f"The page has nothing at {path}.")
        elif method == "POST" and path != f"{API}/upload":
            body = await read(receive, self.max_request)
            if body is None:
                await answer(send, 413, f"Expected at most {self.max_request} bytes.")
            elif asks:
                await self.ask(scope, body, send)
            else:
                await self.app(scope, once(body), send)
        elif path == f"{API}/queue/data":
            await self.listen(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def ask(self, scope, body, send):
        session, wrong = read_question(body, self.num_functions)
        address = (scope.get("client") or ("",))[0]
        if wrong:
            await answer(send, 400, wrong)
            return
        silent = sum(other == address for other in self.silent.values())
        if self.waiting[session] >= self.most_waiting or silent >= self.most_silent:
            await answer(send, 429, "Too many requests are waiting. Try again in a moment.")
            return
        self.waiting[session] += 1
        if not self.listening[session] and session not in self.silent:
            self.silent[session] = address
            task = asyncio.create_task(self.wait_for(session, scope))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        status = 500

        async def look(message):
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, once(body), look)
        finally:
            if status != 200:
                self.answered(session, 1)

    async def wait_for(self, session, scope):
        """Takes the places of a visitor who has not come to listen."""
        await asyncio.sleep(self.grace)
        if self.silent.pop(session, None) is None:
            return
        self.waiting.pop(session, None)
        # Gradio forgets what a visitor waits for when its stream closes: this one opens and closes.
        query = f"session_hash={session}".encode()
        gone = {"method": "GET", "path": f"{API}/queue/data", "query_string": query}
        gone["raw_path"] = gone["path"].encode()

        async def leave():
            return {"type": "http.disconnect"}

        async def drop(message):
            pass

        with contextlib.suppress(Exception):
            await self.app({**scope, **gone}, leave, drop)

    async def listen(self, scope, receive, send):
        query = dict(part.partition("=")[::2] for part in scope["query_string"].decode().split("&"))
        session = query.get("session_hash", "")
        self.silent.pop(session, None)
        self.listening[session] += 1

        async def look(message):
            self.answered(session, message.get("body", b"").count(COMPLETED))
            await send(message)

        try:
            await self.app(scope, receive, look)
        finally:
            self.listening[session] -= 1
            if not self.listening[session]:  # Gradio forgets what this visitor waits for
                del self.listening[session]
                self.waiting.pop(session, None)

    def answered(self, session, count):
        self.waiting[session] -= count
        if self.waiting[session] <= 0:
            del self.waiting[session]


def read_question(body, num_functions):
    """The session of a `queue/join`, and what is wrong with the request in a sentence."""
    try:
        question = json.loads(body)
    except (ValueError, RecursionError):
        return None, "Expected JSON."
    if not isinstance(question, dict):
        return None, "Expected a JSON object."
    session, number = question.get("session_hash"), question.get("fn_index")
    if not isinstance(session, str) or not (session.isascii() and session.isalnum()):
        return None, "Expected a session_hash of letters and digits."
    if len(session) > 64:
        return None, "Expected a session_hash of at most 64 characters."
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < num_functions:
        return None, f"Expected a fn_index, the number of a function, below {num_functions}."
    if not isinstance(question.get("data"), list):
        return None, "Expected data, the list of a function's arguments."
    return session, None


async def read(receive, most):
    """The body of a request; None if it has more than `most` bytes."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            return None
    return bytes(body)


def once(body):
    """A `receive` that hands out a body that is read already, and then waits."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.Event().wait()

    return receive


async def answer(send, status, sentence):
    # Gradio's page shows `detail` to the visitor.
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
