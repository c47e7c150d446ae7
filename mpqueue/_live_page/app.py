"""The live page's server: the page's files, the stream, an item's details and picture, and the buttons' actions."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page import compressed
from mpqueue._live_page.access import Guard
from mpqueue._live_page.aside import BusyError, on_thread
from mpqueue._live_page.feed import PageFeed, Viewer
from mpqueue._live_page.items.comparison import compare, jobs_like
from mpqueue._live_page.items.details import LiveItem, details_of
from mpqueue._live_page.items.listing import ORDERS, Wish
from mpqueue._live_page.items.pictures import find_picture, small
from mpqueue._live_page.job_feed import JobFeed, throughput
from mpqueue._live_page.page_json import cut, encode, encode_item, index_of, result_of
from mpqueue._live_page.served import WISHES, Served
from mpqueue.errors import JobNotFoundError, MPQueueError, shown
from mpqueue.status import ITEM_CODES

log = logging.getLogger("mpqueue")

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
EMPTY: Mapping[str, str] = MappingProxyType({})
#: The most characters of a worker's stack.
MOST_STACK = 20_000
#: The most bytes of a request's body that are read.
MOST_BODY = 100_000
#: The most rows of a list, and labels, in one answer.
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
                        Route(f"{number}/find", routes.find, methods=["GET"]),
                        Route(f"{number}/labels", routes.labels, methods=["GET"]),
                        Route(f"{number}/failures", routes.failures, methods=["GET"]),
                        Route(f"{number}/throughput", routes.throughput, methods=["GET"]),
                        Route(f"{number}/like", routes.like, methods=["GET"]),
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
            exception_handlers={BusyError: _refuse_busy, HTTPException: _refuse_wrong, MPQueueError: _refuse_action},
        ),
        hosts,
    )


class Routes:
    """The answers to the page's requests: a method for each kind."""

    def __init__(self, served: Served, feed: PageFeed) -> None:
        self._served = served
        self._feed = feed
        self._files = {
            path.relative_to(STATIC).as_posix(): (path.read_bytes(), MEDIA_TYPES[path.suffix])
            for path in STATIC.rglob("*")
            if path.suffix in MEDIA_TYPES
        }

    async def file(self, request: Request) -> Response:
        """The page and its files."""
        asked = request.path_params
        found = self._files.get(f"views/{asked['view']}" if "view" in asked else asked.get("name", "index.html"))
        if found is None:
            raise HTTPException(404)
        return _answer(request, *found)

    async def events(self, request: Request) -> Response:
        """The event stream. It ends with the queue; a viewer that loses it earlier may ask again."""
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
        return _answer_json(request, self._feed.states())

    async def items(self, request: Request) -> Response:
        """A page of a job's items, with the job's state at that moment.

        On a thread: users' code or a journal may be slow.
        """
        page = await on_thread(_page_of, self._job_of(request), _wish_of(request), self._served.now)
        return _answer(request, page, "application/json")

    async def find(self, request: Request) -> Response:
        """Send the index of the item with an id, as addresses have it: ``?id=a.png``. On a thread, like `items`."""
        index = await on_thread(index_of, self._job_of(request).book.table, request.query_params.get("id", ""))
        if index is None:
            raise HTTPException(404, "There is no such item (any more).")
        return _answer_json(request, {"index": index})

    async def labels(self, request: Request) -> Response:
        """Send the labels of some items, by their indices: ``?items=3,5``. On a thread, like `items`."""
        job = self._job_of(request)
        try:
            asked = [int(text) for text in request.query_params.get("items", "").split(",") if text][:MOST_ROWS]
        except ValueError:
            raise HTTPException(400, "items: expected indices, such as 3,5") from None
        return _answer_json(request, await on_thread(_labels_of, job, asked))

    async def failures(self, request: Request) -> Response:
        """The job's failed items in groups. On a thread: it looks at all of them."""
        return _answer_json(request, await on_thread(self._job_of(request).listing.failures))

    async def throughput(self, request: Request) -> Response:
        """Send the job's throughput over its whole time. On a thread: it may have thousands of reports."""
        timings, now = self._job_of(request).book.timings, self._served.now()
        return _answer_json(request, await on_thread(throughput, timings, now, self._feed.offset))

    async def like(self, request: Request) -> Response:
        """Send the numbers of the jobs to compare it with. On a thread: it may look at all items' ids."""
        return _answer_json(request, await on_thread(jobs_like, self._job_of(request), self._feed.all()))

    async def compare(self, request: Request) -> Response:
        """Compare two jobs side by side. On a thread: it looks at all their items."""
        job, other = self._job_of(request), self._job_of(request, "other")
        return _answer_json(request, await on_thread(compare, job, other))

    async def report(self, request: Request) -> Response:
        """Send the job's report, a page of its own. On a thread: it looks at all items."""
        try:
            page = await on_thread(self._served.report, self._job_of(request).book)
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        # It contains its scripts and style, named by the policy; it is not part of this page, and can't act for it.
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; sandbox allow-scripts"
        return _answer(request, page.encode(), "text/html", {"Content-Security-Policy": policy})

    async def item(self, request: Request) -> Response:
        """Send all facts about one item. On a thread, like `items`."""
        job, index = self._job_of(request), request.path_params["index"]
        lane = self._feed.lane_of(job.book.number, index)
        live = None
        if lane is not None:
            is_here, keeps_output = self._served.can_resize, job.book.options.capture_output
            live = LiveItem(lane, self._feed.usage, is_here, keeps_output, self._feed.offset)
        return _answer_json(request, await on_thread(_all_of, job, index, live))

    async def picture(self, request: Request) -> Response:
        """The picture in an item's result; ``?small`` for a row. On a thread: it may have to be encoded."""
        table = await on_thread(_table_with, self._job_of(request), index := request.path_params["index"])
        make = small if "small" in request.query_params else find_picture
        try:
            picture = await on_thread(lambda: make(result_of(table, index)))
        except Exception as error:
            log.warning("the picture in a result could not be made", exc_info=True)
            raise HTTPException(404, "The picture in this result could not be made.") from error
        if picture is None:
            raise HTTPException(404, "This result has no picture.")
        return Response(picture.data, media_type=picture.media_type)

    async def act(self, request: Request) -> Response:
        """Run a button's action. On a thread: it waits for the coordinator."""
        action, number = request.path_params["action"], request.path_params["number"]
        if action not in WISHES:
            raise HTTPException(404)
        kill, items, group = await _action_of(request, action)
        if group is not None:
            items = await on_thread(self._job_of(request).listing.members, group)
            if not items:
                raise HTTPException(404, f"group: expected the key of one in failures, got {shown(group)}")
        try:
            await on_thread(self._served.act, number, action, kill=kill, items=items)
        except (IndexError, ValueError) as error:
            raise HTTPException(400, str(error)) from error
        return _as_json({})

    async def resize(self, request: Request) -> Response:
        """Change the number of workers. On a thread, like `act`."""
        count = (await _wishes_of(request, ("concurrency",))).get("concurrency")
        if not isinstance(count, int):
            raise HTTPException(400, 'Expected {"concurrency": 4}, say.')
        try:
            await on_thread(self._served.resize, count)
        except (TypeError, ValueError) as error:
            raise HTTPException(400, str(error)) from error
        return _as_json({})

    async def stacks(self, _: Request) -> Response:
        """Send the stack of each worker: `POST`, since each gets a signal. On a thread: it waits for their answers."""
        stacks = await on_thread(self._served.stacks)
        told = [(one.number, None if one.stack is None else cut(one.stack, MOST_STACK)) for one in stacks]
        return _as_json({"workers": [{"worker": number, "stack": stack} for number, stack in told]})

    def _job_of(self, request: Request, name: str = "number") -> JobFeed:
        """The job that the address names."""
        job = self._feed.find(request.path_params[name])
        if job is None:
            raise HTTPException(404, "There is no such job (any more).")
        return job


# -- wishes ------------------------------------------------------------------------------------------------------------


async def _action_of(request: Request, action: str) -> tuple[bool, Sequence[int] | None, str | None]:
    """Read whether to kill running items, and which items or group of failures are meant; by default the whole job.

    Raises HTTPException, like all functions that read requests.
    """
    wishes = await _wishes_of(request, WISHES[action])
    kill, items, group = wishes.get("kill", False), wishes.get("items"), wishes.get("group")
    if type(kill) is not bool:
        raise HTTPException(400, f"kill: expected true or false, got {shown(kill)}")
    if not (items is None or (isinstance(items, list) and all(type(index) is int for index in items))):
        raise HTTPException(400, 'items: expected {"items": [3, 5]}, say: indices')
    if "group" in wishes and (items is not None or not isinstance(group, str)):
        raise HTTPException(400, 'expected either "items" or a "group", the key of one in failures')
    return kill, items, group


async def _wishes_of(request: Request, known: Sequence[str]) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty object.

    An unreadable body is refused: it must not count as a wish for the whole job.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise HTTPException(400, f"expected a body of at most {MOST_BODY:,} bytes, got more")
    try:
        wishes = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"expected a JSON object as the body, got {shown(body)}: {error}") from None
    if not isinstance(wishes, dict):
        raise HTTPException(400, f"expected a JSON object as the body, got {shown(wishes)}")
    unknown = [key for key in wishes if key not in known]
    if unknown:
        raise HTTPException(400, f"expected {' or '.join(known) or 'an empty body'}, got {shown(unknown[0])}")
    return wishes


# -- lists -------------------------------------------------------------------------------------------------------------


def _wish_of(request: Request) -> Wish:
    """Read the viewer's selection. Raises HTTPException."""
    asked = request.query_params
    status, order = asked.get("status"), asked.get("sort", ORDERS[0])
    descending = order.startswith("-")
    order = order.removeprefix("-")
    if status is not None and status not in ITEM_CODES:
        raise HTTPException(400, f"status: expected one of {', '.join(ITEM_CODES)}, got {status!r}")
    if order not in ORDERS:
        raise HTTPException(
            400, f"sort: expected one of {', '.join(ORDERS)}, perhaps with a - before it, got {order!r}"
        )
    code = None if status is None else [str(one) for one in ITEM_CODES].index(status)
    words = tuple(sorted(set(asked.get("search", "").lower().split())))
    try:
        offset, limit = int(asked.get("offset", "0")), int(asked.get("limit", "100"))
        place_of = int(asked["find"]) if "find" in asked else None
    except ValueError:
        raise HTTPException(400, "offset, limit, find: expected whole numbers") from None
    if offset < 0 or limit < 0:
        raise HTTPException(400, f"offset, limit: expected 0 or more, got {offset} and {limit}")
    return Wish(code, words, asked.get("group"), order, descending, offset, min(limit, MOST_ROWS), place_of)


def _page_of(job: JobFeed, wish: Wish, now: Callable[[], float]) -> bytes:
    """The rows, and ``state``, which agrees with them. ``at`` is the place of the item that was asked for.

    ``milliseconds`` is its cost, so that viewers of very long lists ask less often.
    """
    begun = now()
    shown = job.shown()
    found = job.listing.find(wish, shown.table, shown.statuses)
    indices, table = found.indices, shown.table
    rows = [encode_item(table, at, shown.statuses[at]) for at in indices[wish.offset : wish.offset + wish.limit]]
    head: dict[str, Any] = {"state": shown.state, "matching": len(indices), "offset": wish.offset}
    if found.searched < len(shown.statuses):
        head["searched"] = found.searched
    head["milliseconds"] = round(1000 * (now() - begun))
    if wish.place_of is not None:
        try:
            head["at"] = indices.index(wish.place_of)
        except ValueError:
            head["at"] = None
    return f'{encode(head)[:-1]},"rows":[{",".join(rows)}]}}'.encode()


def _labels_of(job: JobFeed, indices: Sequence[int]) -> dict[str, str]:
    table = job.book.table
    return {str(at): table.label_of(at) for at in indices if 0 <= at < len(table)}


def _table_with(job: JobFeed, index: int) -> ItemTable:
    """The job's items, if they have the one of that index. Raises HTTPException."""
    table = job.book.table
    if index >= len(table):
        raise HTTPException(404, "There is no such item (any more).")
    return table


def _all_of(job: JobFeed, index: int, live: LiveItem | None) -> dict[str, Any]:
    return details_of(job.book, _table_with(job, index), index, live)


async def _refuse_busy(_: Request, __: Exception) -> Response:
    return _as_json({"error": "The page is busy with other requests; some may hang. Try again later."}, 503)


async def _refuse_action(_: Request, error: Exception) -> Response:
    """Refuse an action that the queue can't do, or whose job can't be read from its journal (any more)."""
    return _as_json({"error": str(error)}, 404 if isinstance(error, JobNotFoundError) else 409)


async def _refuse_wrong(_: Request, error: Exception) -> Response:
    """Answer wrong requests; some versions of Starlette use a thread for it that outlives the page."""
    assert isinstance(error, HTTPException)
    return _as_json({"error": error.detail}, error.status_code, error.headers)


def _as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The content as JSON, encoded by the page's own rule: starlette's raises for text that is no UTF-8."""
    return Response(encode(content).encode(), status, headers, "application/json")


def _answer_json(request: Request, content: Any) -> Response:
    return _answer(request, encode(content).encode(), "application/json")


def _answer(request: Request, data: bytes, media_type: str, headers: Mapping[str, str] = EMPTY) -> Response:
    """The answer, compressed if that is worth it."""
    if len(data) < compressed.LEAST or not compressed.reads_gzip(request.headers):
        return Response(data, headers=headers, media_type=media_type)
    return Response(compressed.pack(data), headers={**compressed.HEADERS, **headers}, media_type=media_type)
