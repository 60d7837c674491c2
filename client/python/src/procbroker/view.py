"""A child as it was at one moment: what the blocking and the asynchronous Child have alike."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Dict, List, Optional, Union

from .values import Cleaned, Exit, Owner, Usage, optional_time, time_from_wire

__all__ = ["ChildView"]


class ChildView:
    """A child as it was when the broker last told about it. Two are equal when they are the same child."""

    # Of most children there is nothing to say of these.
    _outcome: Optional[str] = None
    _same_spec: Optional[bool] = None
    _spec: Optional[Dict[str, Any]] = None
    _bound = _held = False

    def __init__(self, raw: Mapping[str, Any], answer: Optional[Mapping[str, Any]] = None, broker: Any = None) -> None:
        """Take what the wire has of the child and, after a create, of its outcome; and the client, which makes it."""
        self._broker = broker
        # Looked at here, so that an answer which is none is found out where it came from.
        self._id: str = raw["id"]
        self._raw = raw
        if answer is not None:
            self._outcome = answer["outcome"]
            self._same_spec = answer.get("same_spec")
            # A create with that lifetime has taken hold of it.
            self._bound = self._held = raw.get("lifetime") == "connection"

    @property
    def raw(self) -> Dict[str, Any]:
        """All of it as the wire has it."""
        return dict(self._raw)

    @property
    def id(self) -> str:
        """Its id, a UUID: the same through restarts of it and of the broker."""
        return self._id

    @property
    def name(self) -> Optional[str]:
        """Its name, if it has one."""
        name: Optional[str] = self._told("name")
        return name

    @property
    def labels(self) -> Dict[str, str]:
        """Its labels."""
        return dict(self._told("labels"))

    @property
    def command(self) -> List[str]:
        """Its command line."""
        return list(self._told("command"))

    @property
    def args(self) -> List[str]:
        """Its command line, under the name that :class:`subprocess.Popen` has for it."""
        return self.command

    @property
    def pid(self) -> Optional[int]:
        """Its process; None before it is started and once it has ended."""
        pid: Optional[int] = self._told("pid")
        return pid

    @property
    def owner(self) -> Owner:
        """Who created it."""
        return Owner(self._told("owner")["uid"], self._told("owner")["gid"])

    @property
    def state(self) -> str:
        """Where it is in its life: ``starting running stopping cleaning ended``, or ``backoff`` between restarts."""
        return str(self._told("state"))

    @property
    def ended(self) -> bool:
        """Whether it is gone, and cleaned up."""
        return self.state == "ended"

    @property
    def status_text(self) -> Optional[str]:
        """What it says of itself: the STATUS= that it sent last, with ``ready.notify()``."""
        status: Optional[str] = self._raw.get("status_text")
        return status

    @property
    def created_at(self) -> datetime.datetime:
        """When it was asked for."""
        return time_from_wire(self._told("created_at"))

    @property
    def started_at(self) -> Optional[datetime.datetime]:
        """When its present process was started."""
        return optional_time(self._told("started_at"))

    @property
    def restarts(self) -> int:
        """How often it was started again, by its policy or by hand."""
        return int(self._told("restarts"))

    @property
    def lifetime(self) -> Union[str, Dict[str, Any]]:
        """What its life is bound to: ``"broker"``, ``"connection"``, ``{"pid": N}`` or ``{"ttl": seconds}``."""
        lifetime = self._told("lifetime")
        return lifetime if isinstance(lifetime, str) else dict(lifetime)

    @property
    def stop_order(self) -> int:
        """Its place in the order of a shutdown."""
        return int(self._told("stop_order"))

    @property
    def exit(self) -> Optional[Exit]:
        """How it ended, once its process has."""
        exit_ = self._told("exit")
        return None if exit_ is None else Exit.from_wire(exit_)

    @property
    def returncode(self) -> Optional[int]:
        """Its exit status as :mod:`subprocess` has it: negative for a signal.

        None while it lives, and when the kernel kept no status of it: ``exit.unknown`` tells the two apart.
        """
        exit_ = self.exit
        return None if exit_ is None else exit_.returncode

    @property
    def cleanup(self) -> Optional[Cleaned]:
        """What its cleanup command did, once that has run."""
        cleanup = self._told("cleanup")
        return None if cleanup is None else Cleaned.from_wire(cleanup)

    @property
    def shortened(self) -> List[str]:
        """The names of the members that are told in part only, being long; ``get`` and ``refresh`` tell all."""
        return [str(name) for name in self._raw.get("shortened", ())]

    @property
    def usage(self) -> Optional[Usage]:
        """What it uses; None unless it was asked for, by ``get``, ``refresh`` or in the ``fields`` of a list."""
        usage = self._raw.get("usage")
        return None if usage is None else Usage.from_wire(usage)

    @property
    def spec(self) -> Optional[Dict[str, Any]]:
        """What it was created with, and what that has become, as the wire has it.

        None unless it was asked for, by ``get`` or ``refresh``, and the caller is its owner or root.
        """
        return None if self._spec is None else dict(self._spec)

    @property
    def containment(self) -> str:
        """What holds its descendants together: ``cgroup`` or ``subreaper``."""
        return str(self._told("containment"))

    @property
    def outcome(self) -> Optional[str]:
        """What the create that returned this did: ``created``, ``existing`` or ``replaced``; else None."""
        return self._outcome

    @property
    def same_spec(self) -> Optional[bool]:
        """With the outcome ``existing``: whether that child was created from an equal specification; else None."""
        return self._same_spec

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same child, at whatever moment."""
        return self._id == other._id if isinstance(other, ChildView) else NotImplemented

    def __hash__(self) -> int:
        """Return what equal children have in common."""
        return hash(self._id)

    def __repr__(self) -> str:
        """Return what tells it apart, and its state."""
        raw = self._raw
        name = "" if raw.get("name") is None else f" {raw['name']}"
        state = "" if raw.get("state") is None else f" {raw['state']}"
        process = "" if raw.get("pid") is None else f" pid={raw['pid']}"
        status = "" if raw.get("exit") is None else f" returncode={self.returncode}"
        return f"<{type(self).__name__}{name} id={self._id}{state}{process}{status}>"

    def _told(self, field: str) -> Any:
        try:
            return self._raw[field]
        except KeyError:
            raise AttributeError(
                f"{field} of {self._id} was not told: it is not among the fields of the list that it is from; "
                "refresh() asks for all of them"
            ) from None

    @property
    def _over(self) -> bool:
        """Whether it is known to have ended."""
        return self._raw.get("state") == "ended"

    def _specify(self, spec: Optional[Mapping[str, Any]]) -> None:
        """Take note of its specification, if it was told."""
        self._spec = None if spec is None else dict(spec)

    def _state(self) -> Dict[str, Any]:
        """Return what a copy of it needs."""
        told = {"raw": dict(self._raw), "outcome": self._outcome, "same_spec": self._same_spec}
        return {**told, "spec": self._spec}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what a copy needs, all but ``raw``."""
        self._outcome, self._same_spec, self._spec = state["outcome"], state["same_spec"], state["spec"]

    def _become(self, raw: Mapping[str, Any]) -> None:
        """Take over what the broker tells now. One assignment: other threads see the old or the new."""
        self._raw = raw

    def _forgotten(self) -> None:
        """Take note that the broker has ended it, and does not remember how."""
        self._become({**self._raw, "state": "ended", "pid": None})
