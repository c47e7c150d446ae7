"""The live page's server: the page's files, the stream, an item's details and picture, and the buttons' actions."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from mpqueue._live_page import page_json
from mpqueue._live_page.access import Guard
from mpqueue._live_page.comparison import compare, jobs_like
from mpqueue._live_page.feed import PageFeed, Viewer
from mpqueue._live_page.job_feed import WINDOW, JobFeed, history, use_now
from mpqueue._live_page.listing import ORDERS, Wish
from mpqueue._live_page.served import WISHES, Served
from mpqueue._report.job_report import make_report
from mpqueue._report.plots import throughput
from mpqueue._text import repr_of
from mpqueue.errors import JobNotFoundError, MPQueueError, shown
from mpqueue.events import milliseconds
from mpqueue.status import ITEM_CODES

log = logging.getLogger("mpqueue")

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: The most characters of a worker's stack.
MOST_STACK = 20_000
#: The most bytes of a request's body that are read.
MOST_BODY = 100_000
#: The most rows of a list, and labels, in one answer.
MOST_ROWS = 200
#: The most digits of a number in an address.
MOST_DIGITS = 15
NO_SUCH_JOB, NO_SUCH_ITEM = "There is no such job (any more).", "There is no such item (any more)."


def make_app(served: Served, feed: PageFeed, hosts: tuple[str, ...]) -> Guard:
    """The application, behind its guard."""
    routes = Routes(served, feed)
    number = "/jobs/{number:int}"
    told_of_jobs = {
        "items": routes.items,
        "find": routes.find,
        "labels": routes.labels,
        "failures": routes.failures,
        "throughput": routes.throughput,
        "like": routes.like,
        "compare/{other:int}": routes.compare,
        "items/{index:int}": routes.item,
        "items/{index:int}/picture": routes.picture,
        "report": routes.report,
    }
    return Guard(
        Starlette(
            routes=[
                Mount(
                    "/{place}",
                    routes=[
                        Route("/", routes.file, methods=["GET"]),
                        Route("/events", routes.events, methods=["GET"]),
                        Route("/jobs", routes.jobs, methods=["GET"]),
                        *(
                            Route(f"{number}/{path}", routes.of_job(tell), methods=["GET"])
                            for path, tell in told_of_jobs.items()
                        ),
                        Route(f"{number}/{{action}}", routes.act, methods=["POST"]),
                        Route("/workers", routes.workers, methods=["GET"]),
                        Route("/workers", routes.resize, methods=["POST"]),
                        Route("/stacks", routes.stacks, methods=["POST"]),
                        Route("/views/{view}", routes.file, methods=["GET"]),
                        Route("/{name}", routes.file, methods=["GET"]),
                    ],
                )
            ],
            exception_handlers={HTTPException: _refuse_wrong, MPQueueError: _refuse_action},
        ),
        hosts,
    )


Answer = Callable[[Request], Awaitable[Response]]


class Routes:
    """The answers to the page's requests: a method for each kind.

    Those that get a job and a request run on a thread, since users' code or a journal may be slow; unless they return a
    response, what they return is sent as JSON.
    """

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
        return Response(found[0], media_type=found[1])

    async def events(self, _: Request) -> Response:
        """The event stream. It ends with the queue; a viewer that loses it earlier may ask again."""
        return StreamingResponse(self._tell(self._feed.join()), media_type="text/event-stream")

    async def _tell(self, viewer: Viewer) -> AsyncIterator[bytes]:
        try:
            yield b"retry: 1000\n\n"
            while not viewer.is_over:
                yield await self._feed.read(viewer)
        finally:
            self._feed.leave(viewer)

    async def jobs(self, _: Request) -> Response:
        """All jobs without their items: for a page in a hidden tab, and for programs."""
        return _as_json(self._feed.states())

    # -- a job -----------------------------------------------------------------------------------------------

    def of_job(self, tell: Callable[[JobFeed, Request], Any]) -> Answer:
        """Return the route that answers with what ``tell`` returns, on a thread, about the job of the address."""

        async def answer(request: Request) -> Response:
            told = await on_thread(tell, self._job_of(request), request)
            return told if isinstance(told, Response) else _as_json(told)

        return answer

    def _job_of(self, request: Request) -> JobFeed:
        """The job that the address names."""
        job = self._feed.find(request.path_params["number"])
        if job is None:
            raise HTTPException(404, NO_SUCH_JOB)
        return job

    def items(self, job: JobFeed, request: Request) -> dict[str, Any]:
        """A page of a job's items, and ``state``, which agrees with it. ``at`` is the place of the item asked for.

        ``milliseconds`` is its cost, so that viewers of very long lists ask less often.
        """
        wish, begun = _wish_of(request), self._served.now()
        state, statuses = job.shown()
        indices, searched = job.listing.find(wish, statuses)
        table = job.book.table
        rows = [page_json.row_of(table, at, statuses[at]) for at in indices[wish.offset : wish.offset + wish.limit]]
        told: dict[str, Any] = {"state": state, "matching": len(indices), "offset": wish.offset, "rows": rows}
        if searched < len(statuses):
            told["searched"] = searched
        told["milliseconds"] = round(1000 * (self._served.now() - begun))
        if wish.place_of is not None:
            told["at"] = indices.index(wish.place_of) if wish.place_of in indices else None
        return told

    def find(self, job: JobFeed, request: Request) -> dict[str, int]:
        """The index of the item with an id, as addresses have it: ``?id=a.png``."""
        index = page_json.index_of(job.book.table, request.query_params.get("id", ""))
        if index is None:
            raise HTTPException(404, NO_SUCH_ITEM)
        return {"index": index}

    def labels(self, job: JobFeed, request: Request) -> dict[str, str]:
        """The labels of some items, by their indices: ``?items=3,5``."""
        try:
            asked = [int(text) for text in request.query_params.get("items", "").split(",") if text][:MOST_ROWS]
        except ValueError:
            raise HTTPException(400, "items: expected indices, such as 3,5") from None
        table = job.book.table
        return {str(at): table.label_of(at) for at in asked if 0 <= at < len(table)}

    def failures(self, job: JobFeed, _: Request) -> dict[str, Any]:
        """The job's failed items in groups."""
        return job.listing.failures()

    def throughput(self, job: JobFeed, _: Request) -> str | None:
        """The job's items per second over its whole time, as SVG; None before the first."""
        timings = job.book.timings
        end = self._served.now() if timings.finished is None else timings.finished
        spans = [span for span in timings.spans() if span.items]
        if not spans or end <= timings.started:
            return None
        return throughput(spans, timings.started, end - timings.started, list(timings.events))[0]

    def like(self, job: JobFeed, _: Request) -> list[int]:
        """The numbers of the jobs to compare it with."""
        return jobs_like(job, self._feed.all())

    def compare(self, job: JobFeed, request: Request) -> dict[str, Any]:
        """Two jobs side by side."""
        number = request.path_params["other"]
        other = next((one for one in self._feed.all() if one.book.number == number), None)
        if other is None:
            raise HTTPException(404, NO_SUCH_JOB)
        return compare(job, other)

    def item(self, job: JobFeed, request: Request) -> dict[str, Any]:
        """All facts about one item."""
        index = request.path_params["index"]
        _check_item(job, index)
        lane = self._feed.lane_of(job.book.number, index)
        told = page_json.details_of(job.book, index)
        if lane is not None and told["status"] == "processing":  # it may have ended meanwhile
            is_here, keeps_output = self._served.can_resize, job.book.options.capture_output
            told["live"] = page_json.as_it_runs(lane, self._feed.offset, is_here=is_here, keeps_output=keeps_output)
        return told

    def report(self, job: JobFeed, _: Request) -> Response:
        """The job's report, a page of its own. It looks at all items."""
        try:
            page = make_report(job.book, None).to_html()
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        # It contains its scripts and style, named by the policy; it is not part of this page, and can't act for it.
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        policy += "; sandbox allow-scripts allow-downloads"
        return Response(page, headers={"Content-Security-Policy": policy}, media_type="text/html")

    def picture(self, job: JobFeed, request: Request) -> Response:
        """The picture in an item's result; ``?small`` for a row. It may have to be encoded."""
        index = request.path_params["index"]
        _check_item(job, index)
        make = page_json.small if "small" in request.query_params else page_json.find_picture
        try:
            picture = make(page_json.result_of(job.book.table, index))
        except BaseException as error:
            log.warning("the picture in a result could not be made", exc_info=True)
            raise HTTPException(404, "The picture in this result could not be made.") from error
        if picture is None:
            raise HTTPException(404, "This result has no picture.")
        return Response(picture.data, media_type=picture.media_type)

    # -- the buttons -----------------------------------------------------------------------------------------

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
        return await _done(self._served.act, number, action, kill=kill, items=items)

    async def resize(self, request: Request) -> Response:
        """Change the number of workers. On a thread, like `act`."""
        count = (await _wishes_of(request, ("concurrency",))).get("concurrency")
        if not isinstance(count, int):
            raise HTTPException(400, 'Expected {"concurrency": 4}, say.')
        return await _done(self._served.resize, count)

    # -- workers ---------------------------------------------------------------------------------------------

    async def workers(self, request: Request) -> Response:
        """Send what the workers did in the last ``?seconds=``, and what they use now. On a thread: it reads reports."""
        since = self._served.now() - min(_number(request, "seconds", int(WINDOW)), WINDOW)
        books = [job.book for job in self._feed.look()]
        lanes = self._feed.lanes if self._served.can_resize else ()
        told = await on_thread(lambda: {**history(books, since, self._feed.offset), "use": use_now(lanes)})
        return _as_json({**told, "now": milliseconds(self._served.wall())})

    async def stacks(self, _: Request) -> Response:
        """Send the stack of each worker: `POST`, since each gets a signal. On a thread: it waits for their answers."""
        stacks = await on_thread(self._served.stacks)
        told = [(one.number, None if one.stack is None else page_json.cut(one.stack, MOST_STACK)) for one in stacks]
        return _as_json({"workers": [{"worker": number, "stack": stack} for number, stack in told]})


async def _done(act: Callable[..., None], *args: Any, **kwargs: Any) -> Response:
    """Do what a button says, on a thread. Raises HTTPException for what the queue refuses."""
    try:
        await on_thread(act, *args, **kwargs)
    except (IndexError, TypeError, ValueError) as error:
        raise HTTPException(400, str(error)) from error
    return _as_json({})


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
    offset, limit = _number(request, "offset", 0), _number(request, "limit", 100)
    place_of = _number(request, "find", 0) if "find" in asked else None
    return Wish(code, words, asked.get("group"), order, descending, offset, min(limit, MOST_ROWS), place_of)


def _number(request: Request, name: str, default: int) -> int:
    """Read a whole number. Raises HTTPException."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > MOST_DIGITS:
        raise HTTPException(400, f"{name}: expected a whole number from 0 up, got {shown(text)}")
    return int(text)


def _check_item(job: JobFeed, index: int) -> None:
    """Raise HTTPException if the job has no item of that index."""
    if index >= len(job.book.table):
        raise HTTPException(404, NO_SUCH_ITEM)


async def _refuse_action(_: Request, error: Exception) -> Response:
    """Refuse an action that the queue can't do, or whose job can't be read from its journal (any more)."""
    return _as_json({"error": str(error)}, 404 if isinstance(error, JobNotFoundError) else 409)


async def _refuse_wrong(_: Request, error: Exception) -> Response:
    """Answer wrong requests; some versions of Starlette use a thread for it that outlives the page."""
    assert isinstance(error, HTTPException)
    return _as_json({"error": error.detail}, error.status_code, error.headers)


def _as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The content as JSON, encoded by the page's own rule: starlette's raises for text that is no UTF-8."""
    return Response(page_json.encode(content), status, headers, "application/json")


# -- Calls that may take long, or for ever, on their own threads beside the event loop. --------------------------------

P = ParamSpec("P")
T = TypeVar("T")

#: The most calls at a time: those that hang keep their threads.
MAX_CALLS = 32
_free = threading.BoundedSemaphore(MAX_CALLS)


async def on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on a new thread, and wait for its value.

    Unlike asyncio's own threads, nothing else waits for it: if a user's ``repr`` hangs, the page can still close and
    the program can end. Raises HTTPException if too many run, or hang, already.
    """
    if not _free.acquire(blocking=False):
        raise HTTPException(503, "The page is busy with other requests; some may hang. Try again later.")
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # the viewer may go; the call goes on

    def work() -> None:
        try:
            value = call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            answer.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - likewise
            answer.set_exception(RuntimeError(repr_of(error)))
        else:
            answer.set_result(value)
        finally:
            _free.release()

    try:
        threading.Thread(target=work, name="mpqueue-page-call", daemon=True).start()
    except BaseException:
        _free.release()
        raise
    return await asyncio.wrap_future(answer)
