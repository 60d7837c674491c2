"""A gunicorn of a test's own: its settings come from the environment."""

import os
from pathlib import Path

bind = f"unix:{os.environ['SERVER_SOCKET']}"
worker_class = os.environ["WORKER_CLASS"]
workers = 3
threads = 8 if worker_class == "gthread" else 1
preload_app = True
# A worker ends by itself after so many requests, and another takes its place.
max_requests = int(os.environ["SERVER_REQUESTS"])
# The broker's --main-stop ends sooner what hangs.
graceful_timeout = 60
timeout = 60
backlog = 512
control_socket_disable = True
worker_tmp_dir = str(Path(os.environ["SERVER_SOCKET"]).parent)
if os.getuid() == 0:
    user = group = "www-data"


def post_worker_init(worker):
    """Say that a worker has begun to heed signals and takes requests."""
    worker.log.info("a worker is ready")
