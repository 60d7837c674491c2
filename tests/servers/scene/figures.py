"""What a request handler of real servers pays: a create beside subprocess.Popen, and a list of 1,000 children.

The list stands beside what a handler would do that looks after its children by itself: reading /proc/PID/stat of each.
"""

from __future__ import annotations

import statistics
import sys

from .kinds import KINDS, Kind, Settings
from .stage import under_the_broker

PAIRS = 300
WARM_UP = 30
CHILDREN = 1000


def measured(kind: Kind) -> str:
    """Return the figures of a server as a line of a table."""
    with under_the_broker(kind, Settings(module="figures", failsafe_s=2)) as stage:
        for _ in range(WARM_UP):
            stage.web.ask("POST", "/pair")
        pairs = [stage.web.ask("POST", "/pair").body for _ in range(PAIRS)]
        popen = statistics.median(pair["popen"] for pair in pairs)
        create = statistics.median(pair["create"] for pair in pairs)
        ratio = statistics.median(pair["create"] / pair["popen"] for pair in pairs)
        for _ in range(CHILDREN // 100):
            stage.web.ask("POST", "/fill/100")
        full = stage.web.ask("GET", "/list").body
        assert full["children"] == CHILDREN, full
        create_words = f"{popen:.2f} | {create:.2f} | {ratio:.2f}"
        list_words = f"{full['look']:.1f} | {full['list']:.1f} | {full['list'] / full['look']:.2f}"
        return f"| {kind.name} | {create_words} | {list_words} |"


def main() -> int:
    """Print a table."""
    kinds = {kind.name: kind for kind in KINDS if kind.python}
    wanted = sys.argv[1:] or list(kinds)
    unknown = [name for name in wanted if name not in kinds]
    if unknown:
        print(f"tests/servers/figures: there is no server {unknown[0]}; there are {', '.join(kinds)}", file=sys.stderr)
        return 2
    columns = ["server", "Popen, ms", "create, ms", "create / Popen", "/proc of 1,000, ms", "list, ms", "list / /proc"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name in wanted:
        print(measured(kinds[name]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
