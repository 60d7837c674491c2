"""Executes a program as a shell with job control does: job.py TOLD PROGRAM...

The program is a job of its own, in the foreground of the terminal that is standard input. Each time that the job is stopped,
the terminal is taken back, `stopped` goes to the pipe TOLD, and the job is put into the foreground again. The exit status is
the job's.
"""
import os
import signal
import sys

told, *program = sys.argv[1:]
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(program[0], program)
with open(told, "w", buffering=1) as tell:
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            # Whoever holds the other end of the terminal is this process's child by now, and goes with the job. The
            # terminal hangs up then.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            for left in open("/proc/thread-self/children").read().split():
                os.kill(int(left), signal.SIGKILL)
                os.waitpid(int(left), 0)
            sys.exit(os.waitstatus_to_exitcode(status))
        front = os.tcgetpgrp(0)
        os.tcsetpgrp(0, os.getpgrp())
        tell.write("stopped in front\n" if front == job else "stopped\n")
        os.tcsetpgrp(0, job)
        os.killpg(job, signal.SIGCONT)
