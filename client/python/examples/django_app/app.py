#!/usr/bin/env python3
"""Jobs of a Django project: started, listed and stopped by views, and by a management command.

In this folder, where procbroker's client and Django are installed:

procbroker serve --socket /tmp/jobs.sock --state-dir /tmp/jobs.state & export PROCBROKER_SOCKET=/tmp/jobs.sock
python3 app.py runserver & curl -X PUT localhost:8000/jobs/a; curl localhost:8000/jobs; python3 app.py jobs --stop a
"""

import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application

settings.configure(SECRET_KEY="of no use here", ALLOWED_HOSTS=["*"], ROOT_URLCONF="jobs.views", INSTALLED_APPS=["jobs"])
django.setup()
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
