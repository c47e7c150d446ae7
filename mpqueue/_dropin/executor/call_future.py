"""`CallFuture`: one call as a future that can end the call, also while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mpqueue._parent.surroundings.replies import SafeFuture

if TYPE_CHECKING:
    from mpqueue._dropin.executor.call_stream import CallStream

R = TypeVar("R")


class CallFuture(SafeFuture[R]):
    """The future of one call. Its callbacks are called on the queue's listener thread."""

    def __init__(self, owner: CallStream) -> None:
        super().__init__()
        self._owner: CallStream | None = owner
        self._index = -1  #: which call of its stream it is

    def cancel(self, *, kill: bool = False) -> bool:
        """Cancel the call: True where it will not run, or (``kill``) its worker is being ended for it.

        One that a worker has, or is about to have, is left alone without ``kill``: the answer is False. With it, other
        calls that were on that worker run again elsewhere without losing a try.
        """
        owner = self._owner
        if owner is None or self.done():
            return super().cancel()
        return bool(owner.drop([self], kill=kill))

    def _drop_later(self) -> None:
        """`cancel` without an answer, callable from a garbage collection."""
        owner = self._owner
        if owner is not None and not self.done():
            owner.drop_later([self._index])

    def running(self) -> bool:
        """True while a worker runs the call."""
        owner = self._owner
        return owner is not None and not self.done() and owner.is_running(self)

    def result(self, timeout: float | None = None) -> R:
        """What the call returned; raises what it raised. Waits at most ``timeout`` seconds (then TimeoutError).

        Raises RuntimeError instead of hanging where it would wait for itself: in a done-callback.
        """
        self._check_waiting(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, None where it returned. Waits as `result` does."""
        self._check_waiting(timeout)
        return super().exception(timeout)

    def _check_waiting(self, timeout: float | None) -> None:
        owner = self._owner
        if timeout is None and owner is not None and not self.done():
            owner.check_waiting_allowed()

    # -- for the stream --------------------------------------------------------------------------------------

    def _return(self, result: R) -> None:
        """The call returned."""
        self._owner = None
        if not self.cancelled():
            self.set_result(result)

    def _return_quietly(self, result: R) -> bool:
        """The same if there are no done-callbacks: False, and nothing was done, if there are."""
        with self._condition:  # no callback is added meanwhile
            if self._done_callbacks:  # type: ignore[attr-defined]
                return False
            self._return(result)
        return True

    def _raise(self, error: BaseException) -> None:
        """The call failed for good."""
        self._owner = None
        if not self.cancelled():
            self.set_exception(error)

    def _give_up(self) -> bool:
        """It is cancelled, and waiting for it ends. False where it has ended meanwhile."""
        if not super().cancel():
            return False
        self._owner = None
        with self._condition:
            if self._state == "CANCELLED":  # else another thread has notified them
                self.set_running_or_notify_cancel()
        return True
