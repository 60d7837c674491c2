"""A child of the blocking client."""

from __future__ import annotations

import contextlib
import copy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple, Type

from .arguments import Duration, Scope, Signal, Since, Stop, Stream
from .errors import ProcbrokerError
from .requests import Default, Timeout
from .streams import LogFollow
from .values import Logs
from .view import ChildView

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Child"]


class Child(ChildView):
    """A child as it was when the broker last told about it; each method here brings it up to date.

    As a context manager it is destroyed at the end of the block; one that was created or reused and has
    the lifetime ``connection`` is released, as others may hold it, too.
    """

    _broker: Broker

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle it as its id, as what was told of it last, and as where its broker is."""
        return _restored, (self._broker._where(), self._state())

    def __copy__(self) -> Child:
        """Return the same child as another snapshot, with the same client."""
        return _with_state(self._broker, self._state())

    def __deepcopy__(self, memo: Dict[int, Any]) -> Child:
        """Return the same child as another snapshot, with the same client."""
        return _with_state(self._broker, copy.deepcopy(self._state(), memo))

    def refresh(self, *, timeout: Timeout = Default.TIMEOUT) -> Child:
        """Ask how it is now, and return it. Raises NotFound when it ended so long ago that it is forgotten."""
        return self._update(self._broker.get(self, timeout=timeout))

    def poll(self, *, timeout: Timeout = Default.TIMEOUT) -> Optional[int]:
        """Ask how it is now, and return ``returncode``."""
        return self.returncode if self._over else self.refresh(timeout=timeout).returncode

    def wait(self, timeout: Optional[Duration] = None) -> Optional[int]:
        """Wait until it has ended and is cleaned up, and return ``returncode``.

        Without a timeout that takes as long as it takes. With one, a TimeoutError is raised: TimedOut if the
        broker answers in time that the child still lives, ClientTimeout if the broker does not answer. The child
        is left as it is.
        """
        if not self._over:
            self._update(self._broker.wait(self, timeout=timeout))
        return self.returncode

    def result(self, timeout: Optional[Duration] = None, *, keep: bool = True) -> Any:
        """Wait until the function that ``process`` has started is over, and return what it returned.

        What the function raised is raised here. Any worker of the same user can ask, for an hour after the end, unless
        one does not ``keep`` it: then it is removed with this call. Raises NoResult when it was ended before,
        ProcessFailed for an exception that cannot travel, and for a result that cannot be pickled or has more than
        16 MiB then, TypeError for another kind of child, and times out as ``wait`` does.
        """
        from .process import leaves_it_to_its_log, result_of  # noqa: PLC0415 - pickle takes long

        self.wait(timeout)
        last_line = ""
        if leaves_it_to_its_log(self):
            with contextlib.suppress(ProcbrokerError):
                last_line = self.logs(tail=1).text
        return result_of(self, keep, last_line)

    def wait_ready(self, timeout: Optional[Duration] = None) -> Child:
        """Wait until it is ready, or has ended before it was, and return it. Times out as ``wait`` does."""
        return self if self._over else self._update(self._broker.wait(self, "ready", timeout=timeout))

    def signal(self, signal: Signal, scope: Scope = "main", *, timeout: Timeout = Default.TIMEOUT) -> None:
        """Send a signal to its process, to its ``group``, or to ``all`` that descends from it.

        Raises ConnectionLost when it is unknown whether it was sent, NotFound when the child has ended.
        """
        for child in self._broker.signal(self, signal, scope, timeout=timeout):
            self._update(child)

    def destroy(
        self, stop: Optional[Stop] = None, *, no_wait: bool = False, timeout: Timeout = Default.TIMEOUT
    ) -> Child:
        """Stop it, by its own steps or by these, and return it when it has ended and is cleaned up.

        Destroying one that has ended is no error. With ``no_wait`` it returns as soon as the stop has begun. A
        ClientTimeout does not end the stop: destroy again to go on waiting.
        """
        if not self._over:
            children = self._broker.destroy(self, stop=stop, no_wait=no_wait, timeout=timeout)
            for child in children:
                self._update(child)
            if not children:
                self._forgotten()
        return self

    def release(self) -> None:
        """Let go of a child with the lifetime ``connection``, which the create that returned this took hold of.

        It ends, after its ``linger``, when nobody else holds it. Beyond thirty-two children at a time, some share a
        connection to be held by, and end no earlier than the others on it are released.
        """
        if self._held:
            self._held = False
            self._broker._release(self.id)

    def restart(self, *, timeout: Timeout = Default.TIMEOUT) -> Child:
        """Stop it and start it again: same id and name, new process. Raises ConnectionLost as ``signal`` does.

        Raises SpawnFailed when its program cannot be executed any more.
        """
        for child in self._broker.restart(self, timeout=timeout):
            self._update(child)
        return self

    def renew(self, *, timeout: Timeout = Default.TIMEOUT) -> Child:
        """Give it its whole time to live again. Raises Unsupported when its lifetime is another one."""
        for child in self._broker.renew(self, timeout=timeout):
            self._update(child)
        return self

    def logs(
        self,
        stream: Stream = "stdout",
        *,
        tail: Optional[int] = None,
        since: Optional[Since] = None,
        timestamps: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> Logs:
        """Return what it wrote: all that is kept, or the last ``tail`` lines, or what came ``since`` a time or an age.

        With ``timestamps`` each line begins with its time.
        """
        return self._broker.logs(self, stream, tail=tail, since=since, timestamps=timestamps, timeout=timeout)

    def follow(
        self,
        stream: Stream = "stdout",
        *,
        tail: Optional[int] = None,
        since: Optional[Since] = None,
        timestamps: bool = False,
    ) -> LogFollow:
        """Iterate over what it wrote, as far back as ``logs`` would, and goes on to write until it ends."""
        return self._broker.follow(self, stream, tail=tail, since=since, timestamps=timestamps)

    def __enter__(self) -> Child:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Destroy it, or let go of it."""
        if self._bound:
            self.release()
        else:
            self.destroy()

    def _update(self, child: Child) -> Child:
        self._become(child._raw)
        if child._spec is not None:
            self._spec = child._spec
        if self._held and self._over:
            self.release()
        return self


def _restored(broker: Broker, state: Dict[str, Any]) -> Child:
    return _with_state(broker, state)


def _with_state(broker: Broker, state: Dict[str, Any]) -> Child:
    child = Child(state["raw"], broker=broker)
    child._set_state(state)
    return child
