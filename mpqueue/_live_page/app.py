"""What is served: the page's files, the stream, an item's details and picture, and what the buttons do."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from mpqueue._live_page import compressed
from mpqueue._live_page.access import Guard
from mpqueue._live_page.aside import BusyError, on_thread
from mpqueue._live_page.feed import PageFeed, Viewer
from mpqueue._live_page.items.comparison import compare
from mpqueue._live_page.items.details import details_of
from mpqueue._live_page.items.listing import ORDERS, Wish
from mpqueue._live_page.items.live_item import LiveItem, live_item
from mpqueue._live_page.items.pictures import find_picture, small
from mpqueue._live_page.job_feed import JobFeed, throughput
from mpqueue._live_page.page_json import cut, encode, encode_item, result_of
from mpqueue._live_page.served import WISHES, Served
from mpqueue.errors import JobNotFoundError, JournalError, MPQueueError, shown
from mpqueue.status import COMPLETED, FAILED, ITEM_CODES

log = logging.getLogger("mpqueue")

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
EMPTY: Mapping[str, str] = MappingProxyType({})
#: Characters of a worker's stack.
MOST_STACK = 20_000
#: Bytes of a request's body that are read.
MOST_BODY = 100_000
#: Rows of a list, and labels, in one answer.
MOST_ROWS = 200


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
                        Route(f"{number}/items", routes.items, methods=["GET"]),
                        Route(f"{number}/labels", routes.labels, methods=["GET"]),
                        Route(f"{number}/failures", routes.failures, methods=["GET"]),
                        Route(f"{number}/throughput", routes.throughput, methods=["GET"]),
                        Route(f"{number}/compare/{{other:int}}", routes.compare, methods=["GET"]),
                        Route(f"{number}/report", routes.report, methods=["GET"]),
                        Route(f"{number}/items/{{index:int}}", routes.item, methods=["GET"]),
                        Route(f"{number}/items/{{index:int}}/picture", routes.picture, methods=["GET"]),
                        Route(f"{number}/{{action}}", routes.act, methods=["POST"]),
                        Route("/workers", routes.resize, methods=["POST"]),
                        Route("/stacks", routes.stacks, methods=["POST"]),
                        Route("/views/{view}", routes.file, methods=["GET"]),
                        Route("/{name}", routes.file, methods=["GET"]),
                    ],
                )
            ],
            exception_handlers={
                BusyError: _answer_busy,
                HTTPException: _answer_wrong,
                JournalError: _answer_unreadable,
            },
        ),
        hosts,
    )


class Routes:
    """The answers."""

    def __init__(self, served: Served, feed: PageFeed) -> None:
        self._served = served
        self._feed = feed
        self._files = {
            path.relative_to(STATIC).as_posix(): (path.read_bytes(), MEDIA_TYPES[path.suffix])
            for path in STATIC.rglob("*")
            if path.suffix in MEDIA_TYPES
        }

    async def file(self, request: Request) -> Response:
        """The page, and what it is made of."""
        asked = request.path_params
        found = self._files.get(f"views/{asked['view']}" if "view" in asked else asked.get("name", "index.html"))
        return _refusal("Not found.", 404) if found is None else _answer(request, *found)

    async def events(self, request: Request) -> Response:
        """The stream. It ends with the queue; a viewer that loses it before may ask again."""
        packer = compressed.Packer() if compressed.reads_gzip(request.headers) else None
        headers = {} if packer is None else compressed.HEADERS
        told = self._tell(self._feed.join(), packer)
        return StreamingResponse(told, headers=headers, media_type="text/event-stream")

    async def _tell(self, viewer: Viewer, packer: compressed.Packer | None) -> AsyncIterator[bytes]:
        try:
            data: bytes | None = b"retry: 1000\n\n"
            while data is not None:
                if data:
                    yield data if packer is None else packer.pack(data)
                data = await viewer.take()
        finally:
            self._feed.leave(viewer)

    async def jobs(self, request: Request) -> Response:
        """All jobs without their items: for a page in a hidden tab, and for programs."""
        return _as_json(self._feed.states(), request=request)

    async def items(self, request: Request) -> Response:
        """A page of a job's items, with how the job stands at that moment.

        On a thread: users' code may be slow, and so may a journal.
        """
        job = self._feed.find(request.path_params["number"])
        if job is None:
            return _refusal("There is no such job (any more).", 404)
        try:
            wish, part = _wish_of(request), _Part.of(request)
        except ValueError as error:
            return _refusal(str(error), 400)
        return _answer(request, await on_thread(_page_of, job, wish, part, self._served.now), "application/json")

    async def labels(self, request: Request) -> Response:
        """What some items are called, by their indices: ``?items=3,5``. On a thread, as `items`."""
        job = self._feed.find(request.path_params["number"])
        if job is None:
            return _refusal("There is no such job (any more).", 404)
        try:
            asked = [int(text) for text in request.query_params.get("items", "").split(",") if text][:MOST_ROWS]
        except ValueError:
            return _refusal("items: expected indices, such as 3,5", 400)
        return _as_json(await on_thread(_labels_of, job, asked), request=request)

    async def failures(self, request: Request) -> Response:
        """The job's failed items in groups. On a thread: it looks at all of them."""
        job = self._feed.find(request.path_params["number"])
        if job is None:
            return _refusal("There is no such job (any more).", 404)
        return _as_json(await on_thread(job.listing.failures.told), request=request)

    async def throughput(self, request: Request) -> Response:
        """How fast the job went, all the time. On a thread: it may have thousands of reports."""
        job = self._feed.find(request.path_params["number"])
        if job is None:
            return _refusal("There is no such job (any more).", 404)
        now = self._served.now()
        return _as_json(await on_thread(throughput, job.book.timings, now, self._feed.offset), request=request)

    async def compare(self, request: Request) -> Response:
        """Two jobs side by side. On a thread: it looks at all their items."""
        jobs = [self._feed.find(request.path_params[name]) for name in ("number", "other")]
        if jobs[0] is None or jobs[1] is None:
            return _refusal("There is no such job (any more).", 404)
        return _as_json(await on_thread(compare, jobs[0].book, jobs[1].book), request=request)

    async def report(self, request: Request) -> Response:
        """Why the job took as long as it did: a page of its own. On a thread: it looks at all items."""
        job = self._feed.find(request.path_params["number"])
        if job is None:
            return _refusal("There is no such job (any more).", 404)
        try:
            page = await on_thread(self._served.report, job.book)
        except ValueError as error:
            return _refusal(str(error), 404)
        # Its scripts and its style are in it, and named there; it is no part of this page, and can't act as this page.
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; sandbox allow-scripts"
        return _answer(request, page.encode(), "text/html", {"Content-Security-Policy": policy})

    async def item(self, request: Request) -> Response:
        """All about one item. On a thread, as `items`."""
        number, index = request.path_params["number"], request.path_params["index"]
        job, lane = self._feed.find(number), self._feed.lane_of(number, index)
        live = None
        if job is not None and lane is not None:
            is_here, keeps_output = self._served.can_resize, job.book.options.capture_output
            live = LiveItem(lane, self._feed.usage, is_here, keeps_output, self._feed.offset)
        found = None if job is None else await on_thread(_all_of, job, index, live)
        return _refusal("There is no such item (any more).", 404) if found is None else _as_json(found, request=request)

    async def picture(self, request: Request) -> Response:
        """The picture in an item's result; ``?small`` for a row. On a thread: it may have to be encoded."""
        job, index = self._feed.find(request.path_params["number"]), request.path_params["index"]
        table = None if job is None else await on_thread(lambda: job.book.table)
        if table is None or index >= len(table):
            return _refusal("There is no such item (any more).", 404)
        make = small if "small" in request.query_params else find_picture
        try:
            picture = await on_thread(lambda: make(result_of(table, index)))
        except Exception:
            log.warning("the picture in a result could not be made", exc_info=True)
            return _refusal("The picture in this result could not be made.", 404)
        if picture is None:
            return _refusal("This result has no picture.", 404)
        return Response(picture.data, media_type=picture.media_type)

    async def act(self, request: Request) -> Response:
        """What a button does. On a thread: it waits for the coordinator."""
        action = request.path_params["action"]
        if action not in WISHES:
            return _refusal("Not found.", 404)
        number = request.path_params["number"]
        try:
            kill, items, group = await _ActionWishes.of(request, action)
            if group is not None:
                job = self._feed.find(number)
                if job is None:
                    return _refusal("There is no such job (any more).", 404)
                items = await on_thread(job.listing.failures.members, group)
                if not items:
                    return _refusal(f"group: expected the key of one in failures, got {shown(group)}", 404)
            await on_thread(self._served.act, number, action, kill=kill, items=items)
        except MPQueueError as error:
            return _refusal(str(error), 404 if isinstance(error, JobNotFoundError) else 409)
        except (IndexError, ValueError) as error:
            return _refusal(str(error), 400)
        return _as_json({})

    async def resize(self, request: Request) -> Response:
        """More workers, or fewer. On a thread, as `act`."""
        try:
            count = (await _wishes_of(request, ("concurrency",))).get("concurrency")
            if not isinstance(count, int):
                return _refusal('Expected {"concurrency": 4}, say.', 400)
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


# -- wishes -----------------------------------------------------------------------------------------------------------


class _ActionWishes(NamedTuple):
    """What an action is asked to do, where that is not what it does by itself: to the whole job, letting items end."""

    kill: bool
    items: Sequence[int] | None
    group: str | None

    @classmethod
    async def of(cls, request: Request, action: str) -> _ActionWishes:
        """Raises ValueError."""
        wishes = await _wishes_of(request, WISHES[action])
        kill, items, group = wishes.get("kill", False), wishes.get("items"), wishes.get("group")
        if type(kill) is not bool:
            raise ValueError(f"kill: expected true or false, got {shown(kill)}")
        if not (items is None or (isinstance(items, list) and all(type(index) is int for index in items))):
            raise ValueError('items: expected {"items": [3, 5]}, say: indices')
        if "group" in wishes and (items is not None or not isinstance(group, str)):
            raise ValueError('expected either "items" or a "group", the key of one in failures')
        return cls(kill, items, group)


async def _wishes_of(request: Request, known: Sequence[str]) -> dict[str, Any]:
    """The JSON object in the body; where that is empty, an empty one. Raises ValueError for any other.

    What can't be read is no wish for the whole job.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise ValueError(f"expected a body of at most {MOST_BODY:,} bytes, got more")
    try:
        wishes = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object as the body, got {shown(body)}: {error}") from None
    if not isinstance(wishes, dict):
        raise ValueError(f"expected a JSON object as the body, got {shown(wishes)}")
    unknown = [key for key in wishes if key not in known]
    if unknown:
        raise ValueError(f"expected {' or '.join(known) or 'an empty body'}, got {shown(unknown[0])}")
    return wishes


# -- lists -------------------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """Which rows of a list are asked for, and of which item the place in it is."""

    offset: int
    limit: int
    find: int | None

    @classmethod
    def of(cls, request: Request) -> _Part:
        """Raises ValueError."""
        asked = request.query_params
        try:
            offset, limit = int(asked.get("offset", "0")), int(asked.get("limit", "100"))
            find = int(asked["find"]) if "find" in asked else None
        except ValueError:
            raise ValueError("offset, limit, find: expected whole numbers") from None
        if offset < 0 or limit < 0:
            raise ValueError(f"offset, limit: expected 0 or more, got {offset} and {limit}")
        return cls(offset, min(limit, MOST_ROWS), find)


def _wish_of(request: Request) -> Wish:
    """Raises ValueError."""
    asked = request.query_params
    status, order = asked.get("status"), asked.get("sort", ORDERS[0])
    descending = order.startswith("-")
    order = order.removeprefix("-")
    if status is not None and status not in ITEM_CODES:
        raise ValueError(f"status: expected one of {', '.join(ITEM_CODES)}, got {status!r}")
    if order not in ORDERS:
        raise ValueError(f"sort: expected one of {', '.join(ORDERS)}, perhaps with a - before it, got {order!r}")
    code = None if status is None else [str(one) for one in ITEM_CODES].index(status)
    words = tuple(sorted(set(asked.get("search", "").lower().split())))
    return Wish(code, words, asked.get("group"), order, descending)


def _page_of(job: JobFeed, wish: Wish, part: _Part, now: Callable[[], float]) -> bytes:
    """The rows, and ``state``, which says nothing else than they do. ``at``: the place of the item asked for.

    ``milliseconds`` is what it cost, so that viewers of very long lists ask less often.
    """
    begun = now()
    shown = job.shown()
    found = job.listing.find(wish, shown.table, shown.statuses)
    indices, table = found.indices, shown.table
    rows = [encode_item(table, at, shown.statuses[at]) for at in indices[part.offset : part.offset + part.limit]]
    head: dict[str, Any] = {"state": shown.state, "matching": len(indices), "offset": part.offset}
    if found.searched < len(shown.statuses):
        head["searched"] = found.searched
    head["milliseconds"] = round(1000 * (now() - begun))
    if part.find is not None:
        try:
            head["at"] = indices.index(part.find)
        except ValueError:
            head["at"] = None
    return f'{encode(head)[:-1]},"rows":[{",".join(rows)}]}}'.encode()


def _labels_of(job: JobFeed, indices: Sequence[int]) -> dict[str, str]:
    table = job.book.table
    return {str(at): table.label_of(at) for at in indices if 0 <= at < len(table)}


def _all_of(job: JobFeed, index: int, live: LiveItem | None) -> dict[str, Any] | None:
    """None where there is no such item."""
    table = job.book.table
    if index >= len(table):
        return None
    is_under_way = table.status[index] not in (COMPLETED, FAILED)
    details = details_of(job.book, table, index)
    if live is not None and is_under_way and details["status"] == "processing":
        details["live"] = live_item(live)
    return details


async def _answer_busy(_: Request, __: Exception) -> Response:
    return _refusal("The page is busy with other requests; some may hang. Try again later.", 503)


async def _answer_unreadable(_: Request, error: Exception) -> Response:
    """What a journal has of a job can't be read (any more)."""
    return _refusal(str(error), 409)


async def _answer_wrong(_: Request, error: Exception) -> Response:
    """As Starlette does, some of whose versions take a thread for it that outlives the page."""
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


def _refusal(why: str, status: int) -> Response:
    return _as_json({"error": why}, status)


def _as_json(content: Any, status: int = 200, request: Request | None = None) -> Response:
    """Encoded by the page's own rule: starlette's raises for what is no UTF-8."""
    data = encode(content).encode()
    if request is None:
        return Response(data, status, media_type="application/json")
    return _answer(request, data, "application/json")


def _answer(request: Request, data: bytes, media_type: str, headers: Mapping[str, str] = EMPTY) -> Response:
    """Compressed, where that is worth it."""
    if len(data) < compressed.LEAST or not compressed.reads_gzip(request.headers):
        return Response(data, headers=headers, media_type=media_type)
    return Response(compressed.pack(data), headers={**compressed.HEADERS, **headers}, media_type=media_type)
