"""Creates children in turn by the broker, by a multiprocessing manager and by subprocess, until each says hello.

Prints how long each took, in seconds: `create` until the hello, `destroy` until the end is known.
"""

import json
import os
import subprocess
import sys
import time
from multiprocessing.managers import BaseManager

TURN = 10


class Jobs:
    """What a team writes that has no broker: one process that owns the children of all workers."""

    def __init__(self):
        self._children = {}

    def start(self, command):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        self._children[child.pid] = child
        return child.pid

    def stop(self, pid):
        child = self._children.pop(pid)
        child.terminate()
        return child.wait()


class Manager(BaseManager):
    pass


Manager.register("Jobs", Jobs)


def by_broker(broker, command):
    return broker.create(command).destroy


def by_manager(jobs, command):
    pid = jobs.start(command)
    return lambda: jobs.stop(pid)


def by_subprocess(command):
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)

    def stop():
        child.terminate()
        return child.wait()

    return stop


def timed(create, hello):
    begin = time.perf_counter()
    destroy = create()
    os.read(hello, 1)
    created = time.perf_counter()
    destroy()
    return created - begin, time.perf_counter() - created


def main():
    package, socket, child, fifo, samples = sys.argv[1:]
    sys.path.insert(0, package)
    import procbroker

    broker = procbroker.Broker(socket)
    command = [child, fifo]
    hello = os.open(fifo, os.O_RDWR)
    with Manager() as manager:
        jobs = manager.Jobs()
        ways = {
            "broker": lambda: by_broker(broker, command),
            "manager": lambda: by_manager(jobs, command),
            "subprocess": lambda: by_subprocess(command),
        }
        taken = {way: {"create": [], "destroy": []} for way in ways}
        for _ in range(-(-int(samples) // TURN)):
            for way, create in ways.items():
                for _ in range(TURN):
                    created, destroyed = timed(create, hello)
                    taken[way]["create"].append(created)
                    taken[way]["destroy"].append(destroyed)
    print(json.dumps(taken))


main()
