"""What is served: the page's files, the stream, an item's details and picture, and what the buttons do."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page.access import Guard
from mpqueue._live_page.aside import BusyError, on_thread
from mpqueue._live_page.details import details_of
from mpqueue._live_page.feed import PageFeed, Viewer
from mpqueue._live_page.page_json import cut, encode, result_of
from mpqueue._live_page.pictures import find_picture
from mpqueue._live_page.served import ACTIONS, Served
from mpqueue.errors import JobNotFoundError, MPQueueError

log = logging.getLogger("mpqueue")

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: Characters of a worker's stack.
MOST_STACK = 20_000
#: Bytes of a request's body that are read.
MOST_BODY = 1000


def make_app(served: Served, feed: PageFeed, hosts: tuple[str, ...]) -> Guard:
    """The application, behind its guard."""
    routes = Routes(served, feed)
    number = "/jobs/{number:int}"
    return Guard(
        Starlette(
            routes=[
                Mount(
                    "/{place}",
                    routes=[
                        Route("/", routes.file, methods=["GET"]),
                        Route("/events", routes.events, methods=["GET"]),
                        Route("/jobs", routes.jobs, methods=["GET"]),
                        Route(f"{number}/items/{{index:int}}", routes.item, methods=["GET"]),
                        Route(f"{number}/items/{{index:int}}/picture", routes.picture, methods=["GET"]),
                        Route(f"{number}/{{action}}", routes.act, methods=["POST"]),
                        Route("/workers", routes.resize, methods=["POST"]),
                        Route("/stacks", routes.stacks, methods=["POST"]),
                        Route("/{name}", routes.file, methods=["GET"]),
                    ],
                )
            ],
            exception_handlers={BusyError: _answer_busy, HTTPException: _answer_wrong},
        ),
        hosts,
    )


class Routes:
    """The answers."""

    def __init__(self, served: Served, feed: PageFeed) -> None:
        self._served = served
        self._feed = feed
        self._files = {
            path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix])
            for path in STATIC.iterdir()
            if path.suffix in MEDIA_TYPES
        }

    async def file(self, request: Request) -> Response:
        """The page, and what it is made of."""
        found = self._files.get(request.path_params.get("name", "index.html"))
        return _refusal("Not found.", 404) if found is None else Response(found[0], media_type=found[1])

    async def events(self, _: Request) -> Response:
        """The stream. It ends with the queue; a viewer that loses it before may ask again."""
        return StreamingResponse(self._tell(self._feed.join()), media_type="text/event-stream")

    async def _tell(self, viewer: Viewer) -> AsyncIterator[bytes]:
        try:
            yield b"retry: 1000\n\n"
            while (data := await viewer.take()) is not None:
                if data:
                    yield data
        finally:
            self._feed.leave(viewer)

    async def jobs(self, _: Request) -> Response:
        """All jobs without their items: for a page in a hidden tab, and for programs."""
        return _as_json(self._feed.states())

    async def item(self, request: Request) -> Response:
        """All about one item. On a thread: users' ``repr`` may take its time."""
        found = self._find(request)
        if found is None:
            return _refusal("There is no such item (any more).", 404)
        return _as_json(await on_thread(details_of, *found))

    async def picture(self, request: Request) -> Response:
        """The picture in an item's result. On a thread: it may have to be encoded."""
        found = self._find(request)
        if found is None:
            return _refusal("There is no such item (any more).", 404)
        book, index = found
        try:
            picture = await on_thread(lambda: find_picture(result_of(book.table, index)))
        except Exception:
            log.warning("the picture in a result could not be made", exc_info=True)
            return _refusal("The picture in this result could not be made.", 404)
        if picture is None:
            return _refusal("This result has no picture.", 404)
        return Response(picture.data, media_type=picture.media_type)

    async def act(self, request: Request) -> Response:
        """What a button does. On a thread: it waits for the coordinator."""
        action = request.path_params["action"]
        if action not in ACTIONS:
            return _refusal("Not found.", 404)
        kill = (await _wishes_of(request)).get("kill") is True
        try:
            await on_thread(self._served.act, request.path_params["number"], action, kill=kill)
        except MPQueueError as error:
            return _refusal(str(error), 404 if isinstance(error, JobNotFoundError) else 409)
        return _as_json({})

    async def resize(self, request: Request) -> Response:
        """More workers, or fewer. On a thread, as `act`."""
        count = (await _wishes_of(request)).get("concurrency")
        if not isinstance(count, int):
            return _refusal('Expected {"concurrency": 4}, say.', 400)
        try:
            await on_thread(self._served.resize, count)
        except (TypeError, ValueError) as error:
            return _refusal(str(error), 400)
        except MPQueueError as error:
            return _refusal(str(error), 409)
        return _as_json({})

    async def stacks(self, _: Request) -> Response:
        """Where each worker is: `POST`, since it sends each a signal. On a thread: it waits for their answers."""
        try:
            stacks = await on_thread(self._served.stacks)
        except MPQueueError as error:
            return _refusal(str(error), 409)
        told = [(one.number, None if one.stack is None else cut(one.stack, MOST_STACK)) for one in stacks]
        return _as_json({"workers": [{"worker": number, "stack": stack} for number, stack in told]})

    def _find(self, request: Request) -> tuple[JobBook, int] | None:
        number, index = request.path_params["number"], request.path_params["index"]
        for book in self._served.books() or ():
            if book.number == number and index < len(book.table):
                return book, index
        return None


async def _wishes_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body; an empty one for anything else."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            return {}
    try:
        wishes = json.loads(body or b"{}")
    except ValueError:
        return {}
    return wishes if isinstance(wishes, dict) else {}


async def _answer_busy(_: Request, __: Exception) -> Response:
    return _refusal("The page is busy with other requests; some may hang. Try again later.", 503)


async def _answer_wrong(_: Request, error: Exception) -> Response:
    """As Starlette does, some of whose versions take a thread for it that outlives the page."""
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


def _refusal(why: str, status: int) -> Response:
    return _as_json({"error": why}, status)


def _as_json(content: Any, status: int = 200) -> Response:
    """Encoded by the page's own rule: starlette's raises for what is no UTF-8."""
    return Response(encode(content).encode(), status, media_type="application/json")
