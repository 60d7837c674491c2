"""Sends half a message with a socket that lingers when it is closed for the last time: lingers.py SOCKET.

Over a connection that stays and over one that is closed at once. Nobody but the receiver has what was sent when it has said how
the broker's socket took that, a word for each connection. What the sockets are connected to is open until its input ends.
"""

import os
import socket
import struct
import sys

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()


kept = []


def send_along(connection):
    full = socket.create_connection(listener.getsockname())
    # Closed by the end of the process, which waits for nothing that lingers.
    kept.append(full)
    full.setblocking(False)
    try:
        while True:
            full.send(b"x" * 65536)
    except BlockingIOError:
        pass
    full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    try:
        socket.send_fds(connection, [b"{"], [full.fileno()])
    except PermissionError:
        return 1
    return 0


told = []
for stays in (True, False):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    helper = os.fork()
    if not helper:
        os._exit(send_along(connection))
    kept.append(listener.accept())
    told.append(("taken", "refused")[os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])])
    if stays:
        kept.append(connection)
    else:
        connection.close()
print(*told, flush=True)
sys.stdin.read()
