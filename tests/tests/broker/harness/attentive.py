"""A child that misses no signal: attentive.py PIPE WORD [GO].

It writes lines to PIPE: `WORD there` when it is ready, `WORD heard` for each SIGUSR1, `WORD asked` at SIGTERM; then it
reads a line from GO, if there is one, writes `WORD ended`, and exits with 3.
"""
import signal
import sys

pipe, word, go = sys.argv[1], sys.argv[2], sys.argv[3:]
awaited = [signal.SIGTERM, signal.SIGUSR1]
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)


def say(what):
    with open(pipe, "w") as end:
        end.write(f"{word} {what}\n")


say("there")
while signal.sigwait(awaited) == signal.SIGUSR1:
    say("heard")
say("asked")
for path in go:
    open(path).readline()
say("ended")
sys.exit(3)
