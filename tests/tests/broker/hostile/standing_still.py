"""Has a process that is connected to a broker stand still in the midst of execve(2): standing_still.py SOCKET UID.

It executes a program while it has a file open on a file system that does not answer when files are closed (fuse(4)). "stands
still" is told when it does; for a line on standard input another process, which has the connection as well, asks for a child over
it and tells the answer. All of it ends with the input.
"""

import ctypes
import os
import socket
import struct
import sys
import threading

MS_REC, MS_PRIVATE, CLONE_NEWNS = 0x4000, 1 << 18, 0x20000
# From linux/fuse.h: the operations that are asked for, and their answers.
FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
LOOKUP, GETATTR, OPEN, FLUSH, INIT = 1, 3, 14, 25, 26
FOLDER, FILE = 1, 2
ENOSYS = 38


def attributes(node):
    mode = 0o40755 if node == FOLDER else 0o100644
    return struct.pack("=6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 512, 0)


def answer(operation, node):
    if operation == INIT:
        return struct.pack("=4I2HI", 7, 22, 0, 0, 1, 1, 4096)
    if operation == LOOKUP:
        return struct.pack("=4Q2I", FILE, 1, 60, 60, 0, 0) + attributes(FILE)
    if operation == GETATTR:
        return struct.pack("=Q2I", 60, 0, 0) + attributes(node)
    if operation == OPEN:
        return struct.pack("=Q2I", 1, 0, 0)
    return None


def serve(device, stands_still):
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return
        _length, operation, unique, node = struct.unpack("=2I2Q", request[:24])
        if operation == FLUSH:
            stands_still.set()
        elif operation not in (FORGET, INTERRUPT, BATCH_FORGET):
            body = answer(operation, node)
            error = 0 if body is not None else -ENOSYS
            body = body or b""
            os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mounted(folder):
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.unshare(CLONE_NEWNS))
    checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    checked(libc.mount(b"silent", folder.encode(), b"fuse", 0, options.encode()))
    return device


def stand_still(user, path, folder, asked):
    """Connects, and executes a program. Whoever is forked in between asks over the same connection."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    if os.fork() == 0:
        while os.read(asked, 1):
            params = b'{"command": ["true"]}'
            connection.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "create", "params": ' + params + b"}\n")
            os.write(1, connection.makefile("rb").readline())
        os._exit(0)
    os.open(os.path.join(folder, "file"), os.O_RDONLY)
    os.execv("/bin/true", ["true"])


path, user, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.mkdir(folder)
device = mounted(folder)
stands_still = threading.Event()
asked, ask = os.pipe()
process = os.fork()
if process == 0:
    os.close(device)
    os.close(ask)
    stand_still(user, path, folder, asked)
os.close(asked)
threading.Thread(target=serve, args=(device, stands_still), daemon=True).start()
stands_still.wait()
print("stands still", flush=True)
for _ in sys.stdin:
    os.write(ask, b".")
os.kill(process, 9)
# All that waits for the file system goes on when nobody serves it any more.
os._exit(0)
