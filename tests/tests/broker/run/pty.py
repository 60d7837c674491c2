"""Executes a program in a session of its own with a terminal: pty.py ORDERS PROGRAM...

The terminal is its standard input. A helper holds the other end: for each line that is written to the pipe ORDERS, it
changes the terminal's size if that is `resize`, and else types the line. What is shown goes to the pipe ORDERS.shown,
and so does `resized`.
"""
import fcntl
import os
import pty
import struct
import sys
import termios
import threading

orders, *program = sys.argv[1:]
master, slave = pty.openpty()
if os.fork() == 0:
    os.close(slave)

    shown = open(orders + ".shown", "wb", buffering=0)

    def show():
        try:
            while text := os.read(master, 4096):
                shown.write(text)
        except OSError:
            pass

    threading.Thread(target=show, daemon=True).start()
    rows = 30
    with open(orders) as lines:
        for line in lines:
            if line == "resize\n":
                rows += 1
                fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, 90, 0, 0))
                shown.write(b"resized\n")
            else:
                os.write(master, line.encode())
    os._exit(0)
os.close(master)
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
os.dup2(slave, 0)
os.execvp(program[0], program)
