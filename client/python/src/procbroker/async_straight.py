"""The usual case of a call in a coroutine: see :mod:`procbroker.straight`."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, TypeVar

from .async_waiting import run_async, suspend
from .call import Call
from .exchange import abandon, answer_in, exchange, settle
from .pool import Pool
from .straight import begin
from .waiting import Readable

T = TypeVar("T")


async def converse_async(pool: Pool, call: Call, reader: Callable[[Dict[str, Any]], T]) -> T:
    """Return what ``exchange`` does, and let the event loop go on meanwhile."""
    begun = begin(pool, call)
    if begun is None:
        return await run_async(exchange(pool, call, reader))
    connection, number, request, sent = begun
    line: Optional[bytes] = None
    try:
        if sent == len(request):
            await suspend(Readable(connection.sock, call.deadline))
            line = connection.read_at_once()
        if line is not None:
            answer = answer_in(line, number, connection)
    except BaseException:  # as in exchange
        abandon(pool, connection, call)
        raise
    if line is None:
        return await run_async(exchange(pool, call, reader, begun))
    return settle(pool, call, connection, answer, reader)
