"""A proxy between a client and its database server, which cuts the connection while a COMMIT is under way."""

import socket
import threading
import time
from contextlib import contextmanager, suppress

from django.db import connection, connections

from reconcile.repair.fault_injection import Step, listen
from tests.helpers import Session

COMMITS = {"postgresql": b"COMMIT\x00", "mysql": b"\x03COMMIT"}
"""How the protocols say it, without its length."""

LATE = 0.4
"""Seconds that a COMMIT is under way after its client has lost the connection: more than a chunk waits for a lock."""

MOST_WAIT = 10


class Proxy:
    """Passes bytes on. What `cut` is set to happens to the next COMMIT, and is noted in `done`.

    before: the server never gets it, and loses its client. after: the server has in_windows it out, and the client never
    hears of it. late: the client loses the connection, and a while later the server gets the COMMIT. With
    gone_ in front: the same, and from then on the server can't be reached through the proxy.
    """

    def __init__(self, *, host, port, commit, late=LATE):
        self.server, self.commit, self.late = (host, port), commit, late
        self.cut, self.done, self.gone = None, [], False
        self.links, self.threads = [], []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.start(self._accept)

    def start(self, act):
        thread = threading.Thread(target=act, daemon=True)
        self.threads.append(thread)
        thread.start()

    def close(self):
        """Hang up everywhere, and wait until no thread is left."""
        _hang_up(self.listening, *(each for link in self.links for each in (link.client, link.server)))
        for thread in self.threads:
            thread.join(MOST_WAIT)
            assert not thread.is_alive()
        for each in (self.listening, *(each for link in self.links for each in (link.client, link.server))):
            each.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                if self.gone:
                    client.close()
                else:
                    self.links.append(_Link(self, client))


class _Link:
    """One connection: the client's end, the server's end, and a thread for each direction."""

    def __init__(self, proxy, client):
        self.proxy, self.client = proxy, client
        self.server = socket.create_connection(proxy.server)
        self.deaf, self.answered = False, threading.Event()
        proxy.start(self._ask)
        proxy.start(self._answer)

    def _ask(self):
        with suppress(OSError):
            while said := self.client.recv(1 << 16):
                if self.proxy.cut and self.proxy.commit in said:
                    self._cut(said)
                    break
                self.server.sendall(said)
        _hang_up(self.server)

    def _answer(self):
        with suppress(OSError):
            while said := self.server.recv(1 << 16):
                if self.deaf:
                    self.answered.set()
                else:
                    self.client.sendall(said)
        _hang_up(self.client)

    def _cut(self, said):
        cut, self.proxy.cut = self.proxy.cut, None
        self.deaf, self.proxy.gone = True, cut.startswith("gone")
        if cut.endswith("late"):
            _hang_up(self.client)
            time.sleep(self.proxy.late)
        if not cut.endswith("before"):
            self.server.sendall(said)
            assert self.answered.wait(MOST_WAIT)
        _hang_up(self.client, self.server)
        self.proxy.done.append(cut)


def _hang_up(*ends):
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(*, late=LATE):
    """A proxy in front of the test's server."""
    settings = connection.settings_dict
    usual = {"postgresql": 5432, "mysql": 3306}[connection.vendor]
    proxy = Proxy(
        host=settings["HOST"],
        port=int(settings["PORT"] or usual),
        commit=COMMITS[connection.vendor],
        late=late,
    )
    try:
        yield proxy
    finally:
        proxy.close()


def through(proxy, act, *, cut, chunks):
    """Do `act` in a session of its own through the proxy, which cuts the COMMITs of these chunks; what it returned."""
    commits = []

    def listener(step):
        commits.extend([step] if step is Step.COMMIT else [])
        if step is Step.COMMIT and len(commits) in chunks:
            proxy.cut = cut

    def behind_the_proxy():
        alias = connections["default"]
        alias.settings_dict = {**alias.settings_dict, "HOST": "127.0.0.1", "PORT": str(proxy.port)}
        with listen(listener):
            return act()

    session = Session(behind_the_proxy)
    session.start()
    return session.join()
