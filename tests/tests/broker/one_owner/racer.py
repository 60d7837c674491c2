"""A client process of the race for one name: racer.py SOCKET SEED ROUNDS CHILD...

It waits for a line on standard input, does ROUNDS random things, and writes what each was answered, a line of
JSON for each.
"""
import json
import random
import socket
import sys

path, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
child = sys.argv[4:]
dice = random.Random(seed)
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
stream = connection.makefile("rw")
sys.stdin.readline()
for number in range(rounds):
    action = dice.choice(["fail", "reuse", "reuse", "replace", "destroy"])
    if action == "destroy":
        method, params = "destroy", {"target": "contested"}
    else:
        method, params = "create", {"command": child, "name": "contested", "if_exists": action}
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    stream.write(json.dumps(request) + "\n")
    stream.flush()
    answer = json.loads(stream.readline())
    assert answer["id"] == number, answer
    print(json.dumps([action, answer]))
