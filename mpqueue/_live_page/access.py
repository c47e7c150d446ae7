"""Access to the page: for requests with its token, from a browser that has opened this page itself.

Each request is checked first. It must

- name a host of ours: with a stranger's host name, another web page tries to pass for this one (DNS rebinding);
- carry the token: in the address, once, which sets a cookie and redirects to the address without it; in the cookie; or
  in an ``Authorization: Bearer`` header, for programs;
- come from the page itself, or from no page: not from another site, nor from another port of this machine.

Other requests get the same refusal for every path, and their connection is closed. The cookie is for one path with a
random name: otherwise a browser would send it to every other server on this machine, since cookies ignore ports.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import Collection, Iterator
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "mpqueue"
REFUSED = 403
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

#: Headers of each answer: nothing is loaded from elsewhere, cached, shown in a frame, or passed on to others.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: For links on other sites: the browser sends the cookie only once the page itself asks again.
_ONCE_MORE = '<!doctype html><meta http-equiv="refresh" content="0"><title>mpqueue</title><p>Opening the page…'
_REFUSAL = "This page needs its whole address, with the token in it: the program that serves it has printed it.\n"


class Guard:
    """An ASGI application around another one; it lets only allowed requests through.

    It calls ``admit`` of the connection's state, see `mpqueue._live_page.server`, once the sender has shown the token.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self.token = secrets.token_urlsafe(32)
        self.place = f"/{secrets.token_hex(6)}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] == REFUSED:
                    headers["Connection"] = "close"  # strangers don't keep their connection
            await send(message)

        if scope["type"] != "http":
            return
        answer = self._judge(scope)
        with contextlib.suppress(ClientDisconnect):  # in the middle of a request: no answer is possible
            await (answer or self._app)(scope, receive, send_with_headers)

    def _judge(self, scope: Scope) -> Response | None:
        """The answer to a sender that is refused; None for an allowed one."""
        headers = Headers(scope=scope)
        name = _name(headers.get("host", ""))
        if name not in self._hosts:
            return PlainTextResponse(f"There is no page of mpqueue under the name {name!r}.\n", REFUSED)
        if scope["path"] == self.place and self._is_token(_from_query(scope)):
            scope["state"]["admit"]()
            if scope["method"] not in ("GET", "HEAD"):
                return PlainTextResponse("Expected GET.\n", 405, {"Allow": "GET, HEAD"})
            answer = RedirectResponse(self.place, 303)
            answer.set_cookie(COOKIE, self.token, path=self.place, httponly=True, samesite="strict")
            return answer
        if not any(self._is_token(offered) for offered in _offered(headers)):
            if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") == "navigate":
                return HTMLResponse(_ONCE_MORE, REFUSED)
            return PlainTextResponse(_REFUSAL, REFUSED)
        scope["state"]["admit"]()
        if not _is_own(headers):
            return PlainTextResponse("Another site's request is not answered.\n", REFUSED)
        if not scope["path"].startswith(self.place):
            return PlainTextResponse("Not found.\n", 404)
        return None

    def _is_token(self, offered: str) -> bool:
        return hmac.compare_digest(offered.encode(errors="replace"), self.token.encode())


def _name(host: str) -> str:
    """The host without its port, which a tunnel may change."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower().rstrip(".")


def _from_query(scope: Scope) -> str:
    try:
        query: bytes = scope["query_string"]
        return parse_qs(query.decode("ascii"), max_num_fields=8).get("token", [""])[0]
    except ValueError:
        return ""


def _offered(headers: Headers) -> Iterator[str]:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield token
    for line in headers.getlist("cookie"):  # not by http.cookies, which takes 3 s for some lines of 16 KB
        for pair in line.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE:
                yield value


def _is_own(headers: Headers) -> bool:
    """False for a request that another site, or another port, makes the browser send."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return False
    return site in ("none", "same-origin")
