"""Telling a worker in time that the broker shuts down."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional

from .errors import ProcbrokerError

if TYPE_CHECKING:
    from .broker import Broker
    from .streams import Events
    from .sync_child import Child

__all__ = ["ShutdownWatch"]

#: The first and the longest pause before a broker that cannot be reached is tried again, in seconds.
_PAUSE_FIRST, _PAUSE_LONGEST = 0.1, 5.0


class ShutdownWatch:
    """A thread that calls back once, when the broker begins to shut down. ``cancel`` ends it."""

    def __init__(self, make_client: Callable[[], Broker], callback: Callable[[], Any]) -> None:
        """Subscribe, and begin. Raises what subscribing raises."""
        self._make_client = make_client
        self._callback = callback
        self._told = False
        self._is_cancelling = False
        self._events: Optional[Events[Child]] = None
        self._begin()
        client = self._client
        try:
            self._events = client._shutdown_event()
            self._start()
        except BaseException:
            client.close()
            raise

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied. Raises TypeError."""
        raise TypeError(f"{type(self).__name__} belongs to this process, and cannot be pickled or copied")

    def cancel(self) -> None:
        """End it; the callback is not called any more, unless it is being called already."""
        # A signal handler that comes in between is not to wait for the event's lock, which this thread has then.
        if not self._is_cancelling:
            self._is_cancelling = True
            self._cancelled.set()
        self._client.close()

    def after_fork(self) -> None:
        """Begin anew in a forked process, which has none of its parent's threads."""
        if self._pid != os.getpid():
            finished = self._told or self._cancelled.is_set()
            self._begin()
            if not finished:
                self._start()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._is_cancelling = False
        self._cancelled = threading.Event()
        # A client of its own: closing that is what ends the thread, wherever it waits.
        self._client = self._make_client()
        self._events = None

    def _start(self) -> None:
        ended_in_time = _end_with_the_interpreter(self)
        # A sub-interpreter may refuse daemon threads, and must not end while it has one.
        threading.Thread(target=self._watch, name="procbroker-shutdown", daemon=not ended_in_time).start()

    def _watch(self) -> None:
        client, pause = self._client, _PAUSE_FIRST
        while not self._cancelled.is_set():
            try:
                told = self._await_shutdown(client)
            except (ProcbrokerError, OSError):
                self._cancelled.wait(pause)
                pause = min(pause * 2, _PAUSE_LONGEST)
                continue
            if told and not self._cancelled.is_set():
                self._told = True
                client.close()
                self._callback()
            return

    def _await_shutdown(self, client: Broker) -> bool:
        if self._events is None:
            self._events = client._shutdown_event()
        return any(event.kind == "shutting_down" for event in self._events)


#: By their ids: a copy of its references is made in one step, which no thread that adds one can disturb.
_watches: weakref.WeakValueDictionary[int, ShutdownWatch] = weakref.WeakValueDictionary()
_hooked: Optional[bool] = None


def _end_with_the_interpreter(watch: ShutdownWatch) -> bool:
    """See to it that a watch ends before the interpreter waits for its threads; return whether it will.

    The hook is the one of concurrent.futures, which has no public name: atexit comes too late, when the
    threads have been waited for.
    """
    global _hooked  # noqa: PLW0603 - hooks are the interpreter's, as modules are
    if _hooked is None:
        register = getattr(threading, "_register_atexit", None)
        _hooked = register is not None
        if register is not None:
            register(_cancel_all)
    _watches[id(watch)] = watch
    return _hooked


def _cancel_all() -> None:
    for reference in _watches.valuerefs():
        watch = reference()
        if watch is not None:
            watch.cancel()
