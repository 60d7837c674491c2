"""child.py NAME ends|stays: says that it is there, notes that it is asked to stop, and ends, or says so and stays.

It has a descendant in a session of its own, which ignores what it is asked.
"""

import signal
import subprocess
import sys

name, way = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
# It inherits that SIGTERM is blocked.
descendant = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
with open("/run/there", "w") as there:
    there.write(f"{descendant.pid}\n")
signal.sigwait([signal.SIGTERM])
with open("/run/stopped", "a") as log:
    log.write(f"{name}\n")
if way == "stays":
    with open("/run/asked", "w") as asked:
        asked.write(f"{name}\n")
    signal.pause()
