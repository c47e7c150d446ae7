"""Without the token nothing is shown and nothing can be done; nor for another site's sake, nor under another's name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mpqueue import Job, JobQueue, JobStatus
from tests.support import handlers as do
from tests.support.pages import Visitor, visit

pytestmark = pytest.mark.slow

PATHS = [
    "",
    "events",
    "jobs",
    "jobs/2/items/0",
    "jobs/2/items",
    "jobs/2/items/0/picture",
    "jobs/2/failures",
    "jobs/2/report",
    "views/item_list.js",
    "main.js",
    "look.css",
    "style.css",
    "nothing",
    "/",
    "/x/jobs",
]


@pytest.fixture(scope="module")
def job() -> Iterator[tuple[Job, str]]:
    with JobQueue(1) as queue:
        queue.create_job("bystander", [], do.succeed)
        queue.cancel("bystander")  # starts the queue's threads
        queue.clear_job("bystander")
        job = queue.create_job("secret-job", ["secret-item"], do.succeed)
        yield job, queue.serve(hosts=["my.host"]).url


@pytest.fixture
def stranger(job: tuple[Job, str]) -> Visitor:
    return Visitor(job[1])


@pytest.fixture
def owner(job: tuple[Job, str]) -> Visitor:
    return visit(job[1])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_without_the_token_every_path_says_the_same(stranger: Visitor, path: str, method: str) -> None:
    answer = stranger.ask(path, method)
    assert answer.status == 403
    assert method == "HEAD" or answer.body == stranger.ask("").body
    assert b"secret" not in answer.body


@pytest.mark.parametrize("token", ["", "x", "ä", "a" * 43, "a" * 4000])
def test_a_wrong_token_is_none(stranger: Visitor, token: str, job: tuple[Job, str]) -> None:
    quoted = token.replace("ä", "%C3%A4")
    assert stranger.ask(f"?token={quoted}").status == 403
    assert stranger.ask("jobs", Authorization=f"Bearer {quoted}").status == 403
    assert stranger.ask("jobs", Cookie=f"mpqueue={quoted}").status == 403
    assert stranger.ask("jobs/2/cancel", "POST", Cookie=f"mpqueue={quoted}").status == 403
    assert job[0].status is JobStatus.PENDING


def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_address(stranger: Visitor) -> None:
    answer = stranger.ask(f"?token={stranger.token}")
    assert (answer.status, answer.headers["Location"], answer.body) == (303, stranger.place, b"")
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert f"path={stranger.place}" in cookie
    # Only the page's own address takes it; POST does not.
    assert stranger.ask(f"jobs?token={stranger.token}").status == 403
    assert stranger.ask(f"/?token={stranger.token}").status == 403
    assert stranger.ask(f"?token={stranger.token}", "POST").status == 405


def test_with_the_token_the_page_is_there(owner: Visitor, stranger: Visitor) -> None:
    assert owner.ask("").status == 200
    assert owner.get("jobs")[0]["jobId"] == "secret-job"
    assert stranger.ask("jobs", Authorization=f"Bearer {stranger.token}").status == 200
    assert owner.token.encode() not in owner.ask("").body + owner.ask("jobs").body


@pytest.mark.parametrize("odd", ["a[b=1", 'x={"a": "b"}', "=", "x", "ä=ö", 'x="' + "\\" * 5000])
def test_other_servers_cookies_do_not_hide_the_pages_own(owner: Visitor, stranger: Visitor, odd: str) -> None:
    assert stranger.ask("jobs", Cookie=f"{odd}; {owner.headers['Cookie']}").status == 200
    assert stranger.ask("jobs", Cookie=f"{odd}; mpqueue=x").status == 403


def test_who_is_refused_is_disconnected(owner: Visitor, stranger: Visitor) -> None:
    assert stranger.ask("jobs").headers["Connection"] == "close"
    assert owner.ask("jobs").headers["Connection"] is None


@pytest.mark.parametrize("path", ["", "jobs", "nothing", "events"])
def test_every_answer_forbids_what_a_page_of_this_kind_never_needs(
    owner: Visitor, stranger: Visitor, path: str
) -> None:
    visitors = (stranger,) if path == "events" else (owner, stranger)
    for visitor in visitors:
        headers = visitor.ask(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "localhost.evil", "[::2]"]
)
def test_other_hosts_names_are_refused_also_with_the_token(owner: Visitor, host: str) -> None:
    assert owner.ask("jobs", Host=host).status == 403
    assert owner.ask(f"?token={owner.token}", Host=host).status == 403
    assert owner.ask("jobs/2/cancel", "POST", Host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80", "my.host", "my.host:8080"])
def test_our_own_names_are_good_at_any_port(owner: Visitor, host: str) -> None:
    assert owner.ask("jobs", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another port of this machine
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port, too
    ],
)
def test_what_other_sites_have_a_browser_ask_is_refused(
    owner: Visitor, job: tuple[Job, str], headers: dict[str, str]
) -> None:
    assert owner.ask("jobs", **headers).status == 403
    assert owner.ask("jobs/2/cancel", "POST", **headers).status == 403
    assert job[0].status is JobStatus.PENDING


def test_the_pages_own_requests_are_answered(owner: Visitor) -> None:
    assert owner.ask("jobs", Origin=f"http://{owner.netloc}", Sec_Fetch_Site="same-origin").status == 200
    assert owner.ask("jobs", Sec_Fetch_Site="none").status == 200


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("jobs/2/cancel", "GET"),
        ("jobs/2/cancel", "PUT"),
        ("jobs", "POST"),
        ("", "POST"),
        ("events", "DELETE"),
        ("main.js", "PUT"),
    ],
)
def test_wrong_methods_are_refused(owner: Visitor, job: tuple[Job, str], path: str, method: str) -> None:
    assert owner.ask(path, method).status == 405
    assert job[0].status is JobStatus.PENDING


@pytest.mark.parametrize(
    "path", ["..%2fapp.py", "../app.py", "%2e%2e/guard.py", "server.py", "__init__.py", "/etc/passwd"]
)
def test_nothing_but_the_pages_own_files_is_served(owner: Visitor, path: str) -> None:
    assert owner.ask(path).status == 404
