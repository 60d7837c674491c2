"""Holds a pipe within the kernel: holds.py PIPE HELLO [hidden], where "-" is the one that is its output.

It moves bytes to the pipe by splice(2) from a socket that nobody writes to, and "holds PID" goes to HELLO when it is in there.
Where it is to be hidden, it has closed all that it had of the pipe by then.
"""

import os
import socket
import sys
import threading

name, hello = sys.argv[1:3]
pipe = 1 if name == "-" else os.open(name, os.O_RDWR)
silent, _writer = socket.socketpair()
thread = threading.Thread(target=os.splice, args=(silent.fileno(), pipe, 1 << 16), daemon=True)
thread.start()


def holds():
    with open(f"/proc/self/task/{thread.native_id}/syscall") as call:
        words = call.read().split()
    return words[1:2] + words[3:4] == [hex(silent.fileno()), hex(pipe)]


while not holds():
    os.sched_yield()
if sys.argv[3:] == ["hidden"]:
    os.close(1)
    os.close(2)
with open(hello, "w") as told:
    told.write(f"holds {os.getpid()}\n")
thread.join()
