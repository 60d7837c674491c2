"""Asks for the list of children again and again, and prints how long each answer took, in seconds."""

import json
import socket
import sys
import time

REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"list"}\n'


def ask(connection):
    begin = time.perf_counter()
    connection.sendall(REQUEST)
    chunks = []
    while True:
        chunk = connection.recv(1 << 20)
        if not chunk:
            sys.exit("the connection was closed before the answer was complete")
        chunks.append(chunk)
        if chunk.endswith(b"\n"):
            break
    text = b"".join(chunks)
    received = time.perf_counter()
    children = json.loads(text)["result"]["children"]
    parsed = time.perf_counter()
    return received - begin, parsed - begin, len(children)


def main():
    path, times, expected = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        answers = [ask(connection) for _ in range(times)]
    for _, _, children in answers:
        if children != expected:
            sys.exit(f"the list has {children} children instead of {expected}")
    print(json.dumps({"received": [a[0] for a in answers], "parsed": [a[1] for a in answers]}))


main()
