"""A main command that misses no signal: main.py PIPE [IGNORED...].

It writes lines to PIPE: `there` when it is ready, and the name of each signal that it gets. SIGTERM ends it, with 3,
unless that is ignored. Of signals that are there at the same time it gets the lowest first.
"""
import signal
import sys

pipe, ignored = sys.argv[1], sys.argv[2:]
names = ["SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGQUIT", "SIGTERM", "SIGINT", "SIGHUP"]
awaited = [signal.Signals[name] for name in names]
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)


def say(what):
    with open(pipe, "w") as end:
        end.write(f"{what}\n")


say("there")
is_over = False
while not is_over or signal.sigpending():
    name = signal.Signals(signal.sigwait(awaited)).name
    say(name)
    is_over = is_over or name == "SIGTERM" and name not in ignored
sys.exit(3)
