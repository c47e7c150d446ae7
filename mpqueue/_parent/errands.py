"""A thread that does things in order: there while there is something to do, left behind where it is stuck in one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

#: Seconds that the thread waits for more before it ends.
LINGER = 1.0


class Errands:
    """Its owner calls `end`. One thread puts. ``on_fault`` gets what an errand raises; none should."""

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._on_fault = on_fault
        self._name = name
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._put = 0  # each of the two is written by one thread at a time
        self._done = 0
        self._lock = threading.Lock()  # held while a thread is started, or finds that it is not needed
        self.thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """True where something that was put has not been done."""
        return self._put != self._done

    def put(self, errand: Callable[[], object]) -> None:
        """Have ``errand`` done some time soon. 2 us, 50 us where the thread has to be started."""
        self._put += 1
        self._waiting.put(errand)
        with self._lock:
            if self.thread is None:
                self._start()

    def go_on(self) -> None:
        """Start the thread if there was no room for it when something was put."""
        with self._lock:
            if self.thread is None and self.busy:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self.thread = thread
        try:
            thread.start()
        except RuntimeError:
            # No room for one: the next errand tries again. While the interpreter exits there are none either, and the
            # workers are about to be killed.
            self.thread = None

    def end(self) -> None:
        """The thread ends once it has done what was put before."""
        self._waiting.put(None)

    def abandon(self) -> None:
        """What is being done is stuck: leave it and its thread behind, and go on with what waits."""
        with self._lock:
            self._done += 1
            self.thread = None
            self._start()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                errand = self._waiting.get(timeout=LINGER)
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty() and self.thread is me:
                        self.thread = None
                        return
                continue
            if errand is None:
                return
            try:
                errand()
            except BaseException as error:
                self._on_fault(error)
            del errand  # what it holds must not live until the next one
            with self._lock:
                if self.thread is not me:  # abandoned: it counts as done, and another thread goes on
                    return
                self._done += 1


class Leavings:
    """What the coordinator is done with and may be users' objects: freed on another thread, as that may run any code.

    Python frees an object where its last reference goes. So what holds one is put aside while it is still needed, and
    handed over at the end of the coordinator's turn, when no frame of it refers to that any more. The collector of
    reference cycles runs on any thread that makes objects, and so may run such code here as well.

    Used on its owner's thread, whose identity is ``owner`` until that has ended. ``on_fault``: see `Errands`.
    """

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._errands = Errands(name, on_fault)
        #: What is not needed any more when the owner's turn is over.
        self.left: list[object] = []
        self.owner: int | None = None

    def add(self, left: object) -> None:
        """This is not needed any more when the owner's turn is over."""
        self.left.append(left)

    def inherit(self, left: object) -> None:
        """Something is being freed that holds this. On any thread: elsewhere it may be freed there."""
        if self.owner is not None and threading.get_ident() == self.owner:
            self.left.append(left)

    def hand_over(self) -> None:
        """The owner's turn is over."""
        if self.left:
            left, self.left = self.left, []
            self._errands.put(left.clear)

    def end(self) -> None:
        """The owner's thread is about to end: another one may get its identity."""
        self.hand_over()
        self._errands.end()
        self.owner = None
