"""The usual case of a call: a connection is idle, nothing is to be asked before, and the answer comes in one piece.

Most calls are that, and all there is to it is to send, to wait and to read. The general way
(:mod:`procbroker.exchange`) takes longer for the same: as steps, which end with an exception, and as it looks for
something else at every turn. What turns out not to be as usual goes on that way from where it has come to.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, TypeVar

from .call import Call
from .exchange import Begun, abandon, answer_in, exchange, settle
from .pool import Pool
from .waiting import run

T = TypeVar("T")


def converse(pool: Pool, call: Call, reader: Callable[[Dict[str, Any]], T]) -> T:
    """Return what ``exchange`` does, and block meanwhile."""
    begun = begin(pool, call)
    if begun is None:
        return run(exchange(pool, call, reader))
    connection, number, request, sent = begun
    line: Optional[bytes] = None
    try:
        if sent == len(request):
            connection.block(call.deadline)
            line = connection.read_at_once()
        if line is not None:
            answer = answer_in(line, number, connection)
    except BaseException:  # as in exchange
        abandon(pool, connection, call)
        raise
    if line is None:
        return run(exchange(pool, call, reader, begun))
    return settle(pool, call, connection, answer, reader)


def begin(pool: Pool, call: Call) -> Optional[Begun]:
    """Send a request over an idle connection; None when there is none, or there is something to be asked before."""
    connection = None if call.holds else pool.take_usual()
    if connection is None:
        return None
    call.connection = connection
    try:
        number = next(connection.ids)
        request = call.request(connection, number)
        try:
            sent = connection.sock.send(request)
        except OSError:  # which the general way, trying again, finds the reason of
            sent = 0
        return connection, number, request, sent
    except BaseException:
        abandon(pool, connection, call)
        raise
