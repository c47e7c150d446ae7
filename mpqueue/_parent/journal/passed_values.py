"""Values on their way between the stages of a recorded job: a row for each lot that has passed on together.

An entry says of which value it is what came: the *place* of the stage that took it, and its path. Paths begin with the
input's slot. A journal has the values of inputs that have not ended; so a run that goes on begins with what the last
stages were about to take. Entries count in the order in which they were written, and one of a value that is not on its
way any more, since its input began anew, says nothing. No caller waits for them: what is not on disk is made once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._parent.journal.kept_values import Place, Statement, prepare, unseal
from mpqueue._parent.journal.lots import PUT
from mpqueue._wire.parcels import Parcel
from mpqueue._wire.pickling.payload import Packed, without_segment
from mpqueue.errors import JournalError

if TYPE_CHECKING:
    from mpqueue._core.state.pipeline import Path
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob

REMOVE = "DELETE FROM added_items WHERE job = ? AND first = ?"
REMOVE_ALL = "DELETE FROM added_items WHERE job = ?"
#: Bytes of a value that is kept, at most. Of a bigger one, the stage that made it runs again.
MOST_VALUE = 4 << 20

#: A path, the place of the stage whose item that is, and its value, pickled.
Value = tuple["Path", int, bytes]


class PassedOn(NamedTuple):
    """The value at this path, in the stage at this place, has brought these."""

    path: Path
    place: int
    brought: list[Value]


class PassRecord:
    """What a run has passed on, and is to be written; and in which rows there is something of which input.

    On the coordinator's thread.
    """

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = slots
        self._entries: list[tuple[int, PassedOn]] = []  #: each with the index of its input
        self._next = 0
        self._rows_of: dict[int, list[int]] = {}  #: by input
        self._inputs_left: Counter[int] = Counter()  #: by row: inputs that have not ended

    def note(self, path: Path, place: int, brought: Sequence[tuple[Path, object]]) -> None:
        """An item has ended, and so much goes on to the next stage. Nothing where one of them is not to be kept."""
        values = []
        for own, value in brought:
            if not isinstance(value, Parcel) or value.size > MOST_VALUE:
                return
            values.append((self._known(own), place + 1, _in_one(value)))
        self._entries.append((path[0], PassedOn(self._known(path), place, values)))

    def keep(self, root: int, values: Sequence[Value]) -> None:
        """Of that input, these are on their way, as another run has left them."""
        slot = self._slots[root]
        self._entries.append(
            (root, PassedOn((slot,), 0, [((slot, *path[1:]), place, data) for path, place, data in values]))
        )

    def statements(self, job: int) -> list[Statement]:
        """What writes all that is new."""
        entries, self._entries = self._entries, []
        if not entries:
            return []
        row, self._next = self._next, self._next + 1
        inputs = {root for root, _ in entries}
        self._inputs_left[row] = len(inputs)
        for root in inputs:
            self._rows_of.setdefault(root, []).append(row)
        body = prepare([tuple(entry) for _, entry in entries]).seal(_place(job, row))
        return [(PUT, (job, row, len(entries), body))]

    def ended(self, job: int, roots: Iterable[int]) -> list[Statement]:
        """These inputs have ended: what removes the rows that are of no use any more."""
        gone: list[Statement] = []
        for root in roots:
            for row in self._rows_of.pop(root, ()):
                self._inputs_left[row] -= 1
                if not self._inputs_left[row]:
                    del self._inputs_left[row]
                    gone.append((REMOVE, (job, row)))
        return gone

    def _known(self, path: Path) -> Path:
        return (self._slots[path[0]], *path[1:])


def _in_one(value: Parcel) -> bytes:
    return without_segment(value.packed) if isinstance(value.packed, Packed) else value.packed


def read_passed(reader: Reader, job: RecordedJob) -> dict[int, list[Value]]:
    """What is on its way of each input, by its slot; not of those of which nothing is. Damaged rows say nothing."""
    entries: list[PassedOn] = []
    for row, body in reader.at_once(lambda: reader.passed(job)):
        try:
            entries += [PassedOn(*each) for each in unseal(body, _place(job.number, row), reader.path)]
        except JournalError:
            break  # what follows may be of what it had
    return on_their_way(entries)


def on_their_way(entries: Iterable[PassedOn]) -> dict[int, list[Value]]:
    """What these entries say, in their order."""
    inputs: dict[int, dict[tuple[Path, int], bytes]] = {}
    for entry in entries:
        slot = entry.path[0]
        values = inputs.setdefault(slot, {((slot,), 0): b""})
        if values.pop((entry.path, entry.place), None) is not None:
            values.update({(path, place): data for path, place, data in entry.brought})
    return {
        slot: [(path, place, data) for (path, place), data in values.items()]
        for slot, values in inputs.items()
        if values and ((slot,), 0) not in values
    }


def _place(job: int, row: int) -> Place:
    return Place("added_items", job, row)
