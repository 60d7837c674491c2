"""A crowd of connections that does what nobody should: crowd.py SOCKET CONDUCT COUNT.

It writes a line with its number when all of them are there, goes on until its standard input is closed, and connects
again whenever it is thrown out.
"""
import json
import os
import selectors
import socket
import sys

PATH, CONDUCT, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])


def request(method, **params):
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


STATUS = request("status")
# What each of them says, as often as it is let.
SAYS = {
    "silent": b"",
    "partial": b'{"jsonrpc":"2.0","id":1,"method":"create","params":{"command":["' + b"x" * 900_000,
    "flood": STATUS * 200,
    "unread": request("list", all=True) * 50 + request("logs", target="chatter") * 20,
    "subscribe": request("events", since=1, labels={"x": "y" * 4_000}) * 20
    + request("logs", target="chatter", follow=True) * 4,
    "pipeline": request("wait", target="chatter") * 900 + STATUS * 100,
    "garbage": b"\x00\xff no request of any kind\n" * 1_000,
    "refused": STATUS,
    "churn": STATUS,
}
READS = {"silent", "flood", "pipeline", "garbage", "refused", "churn"}


def prepare():
    """Something to ask for that is long: a child's output, and many children with long labels."""
    script = "yes 0123456789012345678901234567890 | head -c 15000000; exec sleep infinity"
    creates = [request("create", command=["sh", "-c", script], name="chatter", if_exists="reuse")]
    creates += [request("create", command=["true"], labels={"x": "y" * 2_000}) for _ in range(60)]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(PATH)
        with connection.makefile("rb") as answers:
            for create in creates:
                connection.sendall(create)
                assert b'"result"' in answers.readline()


class Client:
    def __init__(self):
        self.socket, self.rest = None, b""

    def connect(self):
        """Whether it could: the queue of those who wait at the door may be full."""
        self.socket, self.rest = socket.socket(socket.AF_UNIX), SAYS[CONDUCT]
        self.socket.setblocking(False)
        try:
            self.socket.connect(PATH)
        except OSError:
            self.socket.close()
            return False
        self.watched = 0
        self.watch()
        return True

    def watch(self):
        events = selectors.EVENT_READ if CONDUCT in READS else 0
        if self.rest:
            events |= selectors.EVENT_WRITE
        if events == self.watched:
            return
        if not self.watched:
            selector.register(self.socket, events, self)
        elif not events:
            selector.unregister(self.socket)
        else:
            selector.modify(self.socket, events, self)
        self.watched = events

    def act(self, mask):
        if mask & selectors.EVENT_WRITE:
            self.rest = self.rest[self.socket.send(self.rest) :]
            if not self.rest and CONDUCT == "flood":
                self.rest = SAYS[CONDUCT]
        if mask & selectors.EVENT_READ and (not self.socket.recv(1 << 16) or CONDUCT == "churn"):
            raise ConnectionResetError
        self.watch()

    def close(self):
        if self.watched:
            selector.unregister(self.socket)
        self.socket.close()


if CONDUCT in {"unread", "subscribe", "pipeline"}:
    prepare()
selector = selectors.DefaultSelector()
selector.register(sys.stdin, selectors.EVENT_READ, None)
outside = [Client() for _ in range(COUNT)]
is_told = False
while True:
    outside = [client for client in outside if not client.connect()]
    if not outside and not is_told:
        is_told = True
        print(COUNT, flush=True)
    for key, mask in selector.select(0 if outside else None):
        if key.data is None:
            os._exit(0)
        try:
            key.data.act(mask)
        except BlockingIOError:
            pass
        except OSError:
            key.data.close()
            outside.append(key.data)
