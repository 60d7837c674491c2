from django.core.management.base import BaseCommand

from jobs.views import broker


class Command(BaseCommand):
    help = "Lists the jobs that run, and stops those that are named."

    def add_arguments(self, parser):
        parser.add_argument("--stop", metavar="KEY", nargs="+", default=[])

    def handle(self, *, stop, **_):
        for key in stop:
            broker.destroy(f"job-{key}")
        for child in broker.list(labels={"app": "jobs"}):
            self.stdout.write(f"{child.name} {child.state} {child.pid}")
