"""Replicas of the API behind one name: they come, go and die, and clients do not see it."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from tests.integration.nginx_edge import Edge, problem, running_app, running_edge, until

FIRST, SECOND, THIRD, FOURTH = (f"127.0.0.{n}" for n in (2, 3, 4, 5))
# Swarm takes a task out of DNS this long before it asks it to stop.
NOTICE_SECONDS: Final = 2.0


class Names(BaseResolver):  # type: ignore[misc] # dnslib ships no types
    """A name server that knows one name, whose addresses the test changes. Like Docker's, it says that they last."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()

    def resolve(self, request: DNSRecord, _: DNSHandler) -> DNSRecord:
        reply = request.reply()
        if str(request.q.qname) == "api." and self.addresses:
            for address in self.addresses:
                reply.add_answer(RR("api.", QTYPE.A, rdata=A(address), ttl=600))
        else:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply


@dataclass(frozen=True)
class Site:
    """An edge, the names that it asks for, and the port on which every replica listens."""

    edge: Edge
    names: Names
    port: int


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    names = Names()
    server = DNSServer(names, address="127.0.0.1", port=0, logger=DNSLogger("-request,-reply,-truncated,-error"))
    server.start_thread()
    port = free_port_on_all()
    name_server = f"127.0.0.1:{server.server.server_address[1]}"
    try:
        plenty = {"requests_per_second": 10_000, "requests_burst": 10_000}
        with running_edge(tmp_path / "edge", api=f"api:{port}", resolver=name_server, **plenty) as edge:
            yield Site(edge, names, port)
    finally:
        server.stop()
        server.server.server_close()


def free_port_on_all() -> int:
    """A port that no replica's address has taken."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))  # noqa: S104 - asked for, not listened on
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def clients(url: str, count: int = 4) -> Iterator[Counter[str]]:
    """Clients that ask all the time, one request after the other; how often they got which answer."""
    answered: Counter[str] = Counter()
    over = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not over.is_set():
                method = ("GET", "POST", "PUT", "GET")[number % 4]
                try:
                    answer = client.request(method, "/api/sources", content=b"" if method == "GET" else b"body")
                    answered[str(answer.status_code)] += 1
                    time.sleep(0.005)
                except httpx.TransportError as error:
                    answered[repr(error)] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        over.set()
        for thread in threads:
            thread.join()


def until_many_more(answered: Counter[str]) -> None:
    """Wait until the clients have asked often enough to meet every replica."""
    before = answered.total()
    until(lambda: answered.total() > before + 40)


def test_replicas_are_replaced_one_by_one_under_load_and_every_request_is_answered(site: Site) -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as replacements:
        first.enter_context(running_app(host=FIRST, port=site.port))
        second.enter_context(running_app(host=SECOND, port=site.port))
        site.names.addresses = (FIRST, SECOND)
        until(lambda: httpx.get(f"{site.edge.url}/api/sources", timeout=30).is_success)
        with clients(site.edge.url) as answered:
            for old, address, left in ((first, THIRD, (SECOND, THIRD)), (second, FOURTH, (THIRD, FOURTH))):
                replacements.enter_context(running_app(host=address, port=site.port))
                site.names.addresses = (*site.names.addresses, address)
                until_many_more(answered)
                site.names.addresses = left
                time.sleep(NOTICE_SECONDS)
                old.close()
            until_many_more(answered)

    assert answered.keys() == {"200"}, answered
    upstreams = {line["upstream"].rpartition(":")[0] for line in site.edge.log()}
    assert {FIRST, SECOND, THIRD, FOURTH} <= upstreams


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_replica_that_is_dead_but_still_in_dns_is_skipped(site: Site, method: str) -> None:
    site.names.addresses = (FIRST, SECOND)
    with running_app(host=SECOND, port=site.port):
        answers = [httpx.request(method, f"{site.edge.url}/api/sources", timeout=30) for _ in range(12)]

    assert {answer.status_code for answer in answers} == {200}
    skipped = f"{FIRST}:{site.port}, {SECOND}:{site.port}"
    until(lambda: skipped in {line["upstream"] for line in site.edge.log()})


def test_a_replica_that_is_dead_is_skipped_by_an_upload_too(site: Site) -> None:
    site.names.addresses = (FIRST, SECOND)
    content = bytes(5 * 1024**2)
    with running_app(host=SECOND, port=site.port):
        answers = [httpx.post(f"{site.edge.url}/api/documents", content=content, timeout=30) for _ in range(6)]

    assert {(answer.status_code, answer.json()["size"]) for answer in answers} == {(200, len(content))}


@dataclass
class Broken:
    """Servers that take a request and end the connection without an answer."""

    taken: list[bytes] = field(default_factory=list)

    @contextmanager
    def running(self, host: str, port: int) -> Iterator[None]:
        taken = self.taken

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                taken.append(self.rfile.readline())

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True

        with Server((host, port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("POST", 1), ("PATCH", 1)])
def test_a_request_that_changes_something_is_never_sent_twice(site: Site, method: str, times: int) -> None:
    site.names.addresses = (FIRST, SECOND)
    broken = Broken()
    with broken.running(FIRST, site.port), broken.running(SECOND, site.port):
        answer = httpx.request(method, f"{site.edge.url}/api/sources", timeout=30)

    assert len(broken.taken) == times
    assert (answer.status_code, problem(answer)["code"]) == (502, "temporarily_unavailable")


@pytest.mark.parametrize("addresses", [(), (FIRST, SECOND)], ids=["no address", "nobody listens"])
@pytest.mark.parametrize("path", ["/api/sources", "/v1/models", "/docs"])
def test_without_any_replica_clients_are_told_to_come_back_and_when(
    site: Site, addresses: tuple[str, ...], path: str
) -> None:
    site.names.addresses = addresses

    answer = httpx.get(site.edge.url + path, timeout=30)

    found = problem(answer)
    assert (answer.status_code, found["code"], found["retry_after"]) == (502, "temporarily_unavailable", 5)
    assert ("error" in found) == path.startswith("/v1/")
    assert httpx.get(f"{site.edge.url}/nginx-health").is_success


def test_a_name_that_appears_is_found_without_a_reload(site: Site) -> None:
    assert httpx.get(f"{site.edge.url}/api/sources", timeout=30).status_code == 502

    with running_app(host=FIRST, port=site.port):
        site.names.addresses = (FIRST,)

        until(lambda: httpx.get(f"{site.edge.url}/api/sources", timeout=30).is_success)
