"""A job's items on their way into a journal: what they are, which are recorded, and what is to be written of the rest.

Everything here runs on the thread that creates the job, since it may run code of the items' classes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import eq
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.chunk_rows import fresh_row
from mpqueue._parent.journal.identity import (
    SIZE,
    Key,
    NoIdentityError,
    digest_of_key,
    digests,
    name_unstable,
    states_of,
    unknowable,
    why_unstable,
)
from mpqueue._parent.journal.journal_file import JobItems
from mpqueue._parent.journal.kept_values import NotKept, Unreadable, Unsealed, prepare
from mpqueue._parent.journal.lots import hash_payloads, keep_payloads
from mpqueue._parent.journal.matching import BLOCK, NOBODY, Block, Match, match
from mpqueue.errors import JournalMismatchError, shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.journal_writer import Journal

#: Items that are written in one transaction; a whole multiple of `BLOCK`.
BATCH = 16 * BLOCK


class Inventory:
    """The items of one job. Raises TypeError for items that have no identity, and what ``key`` raises."""

    def __init__(self, table: ItemTable, key: Key | None = None) -> None:
        self.table = table
        self._key = key
        self._adopted: list[Block] | None = None
        #: The items whose payloads are not in the journal, once they are written or matched.
        self.left_out: frozenset[int] = frozenset()

    # -- what the items are ----------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[Block]:
        """What all items are, as they are now."""
        for lo in range(0, len(self.table), BLOCK):
            yield self._block(range(lo, min(lo + BLOCK, len(self.table))))

    def _block(self, indices: Sequence[int]) -> Block:
        """What these items are, as they are now."""
        table = self.table
        payloads = table.payloads_of(indices)
        ids = None if table.ids is None else [table.ids[index] for index in indices]
        try:
            identities = digests(payloads if ids is None else ids)
        except NoIdentityError:
            what = name_unstable(payloads if ids is None else ids, indices)
            raise unknowable(what, has_ids=ids is not None) from None
        if self._key is not None:
            return Block(identities, b"".join(map(self._take_key, indices, payloads)))
        return Block(identities, None if ids is None else states_of(payloads))

    def _take_key(self, index: int, payload: Any) -> bytes:
        assert self._key is not None
        return digest_of_key(self._key, payload, self.table.id_of(index))

    # -- a job that the journal has not ----------------------------------------------------------------------

    def add(self, journal: Journal, columns: dict[str, Any]) -> int:
        """Write a new job; returns its number. It counts once all of it is on disk. Raises `JournalError`."""
        count = len(self.table)
        number: int | None = None
        left_out: list[int] = []
        try:
            for lo in range(0, max(count, 1), BATCH):
                hi = min(lo + BATCH, count)
                items, left = self._batch(range(lo, hi), range(lo, hi))
                left_out += left
                total = {"total": count, "slots": count} if hi == count else {"total": -1}
                changes = {**columns, **total} if number is None else total
                number = journal.ask(_put(number, changes, items))
        except BaseException:
            if number is not None:
                journal.ask(_remove(number))
            raise
        assert number is not None
        self.left_out = frozenset(left_out)
        return number

    def _batch(self, slots: range, indices: Sequence[int]) -> tuple[JobItems, list[int]]:
        """New items, whose slots begin with that of a block, and the indices of those that are left out."""
        table = self.table
        payloads, left_out = keep_payloads(slots, table.payloads_of(indices))
        blocks = []
        for lo in range(0, len(slots), BLOCK):
            part = indices[lo : lo + BLOCK]
            left = tuple(at - lo for at in left_out if lo <= at < lo + BLOCK)
            ids = None if table.ids is None else [table.ids[index] for index in part]
            blocks.append(_block_row(slots[lo], self._block(part)._replace(left_out=left), ids))
        return JobItems(payloads, blocks), [indices[at] for at in left_out]

    # -- a job that it has -----------------------------------------------------------------------------------

    def match(self, reader: Reader, recorded: RecordedJob) -> Match:
        """Which items are recorded. The table's slots are set, those of new items too.

        Raises `JournalError`; `JournalMismatchError` for a job of version 1 of which that can't be known.
        """
        blocks: Iterable[Block] = reader.blocks(recorded)
        if recorded.slots is None:
            blocks = self._adopted = self._adopt(reader, recorded)
        left_out: set[int] = set()
        places = reader.places(recorded)
        order: Iterable[int] = range(recorded.count)
        present = None if places is None else _present(places, recorded.count)
        blocks = _noted(blocks, left_out)
        if places is not None and present is not None:
            order, blocks = _in_order(places, present, blocks)
        found = match(self._blocks(), blocks, order)
        if present is not None:
            found.note_absent(present)
        found.number_new(recorded.count)
        count = len(self.table)
        trivial = recorded.count + len(found.new) == count and all(map(eq, found.slots, range(count)))
        self.table.slots = None if trivial else found.slots
        self.left_out = (
            frozenset(index for index, slot in enumerate(found.slots) if slot in left_out) if left_out else frozenset()
        )
        return found

    def write(
        self,
        journal: Journal,
        recorded: RecordedJob,
        found: Match,
        columns: dict[str, Any],
        afresh: Iterable[int],
        *,
        everything: bool,
    ) -> None:
        """Have the journal say what the items are now; those at the indices ``afresh`` are as if they had never run.

        With ``everything`` all are that are recorded, gone ones too. Raises `JournalError`; then nothing was changed.
        """
        table = self.table
        left_out = set(self.left_out).difference(found.new, found.changed)
        with_others = -recorded.count % BLOCK  # new items whose block has slots that count
        touched = sorted(chain(found.new[:with_others], found.changed), key=found.slots.__getitem__)
        left_out.update(self._write_beyond(journal, recorded, found.new, with_others))
        payloads: list[Unsealed] = []
        patches = _Patches()
        for lo in range(0, len(touched), BLOCK):
            indices = touched[lo : lo + BLOCK]
            bodies, left = keep_payloads([found.slots[index] for index in indices], table.payloads_of(indices))
            left_out.update(indices[at] for at in left)
            payloads += bodies
            block = self._block(indices)._replace(left_out=tuple(left))
            patches.add(indices, found.slots, block, table.ids)
        self.left_out = frozenset(left_out)
        blocks = patches.blocks(journal.reader, recorded, self._adopted, has_ids=table.ids is not None)
        if self._adopted is not None:
            columns = {**columns, "ids": None}
        if everything:
            slots = range(recorded.count)
            rows = [fresh_row(slots[lo : lo + BATCH]) for lo in range(0, len(slots), BATCH)]
        else:
            slots_afresh = sorted(found.slots[index] for index in afresh)
            rows = [fresh_row(slots_afresh)] if slots_afresh else []
        places = None if table.slots is None else prepare(table.slots.tobytes())
        columns = {
            **columns,
            "total": len(table),
            "slots": recorded.count + len(found.new),
            "places": places,
            "rule": str(table.rule),
        }
        journal.ask(_put(recorded.number, columns, JobItems(payloads, blocks, rows)))

    def _write_beyond(self, journal: Journal, recorded: RecordedJob, new: array[int], first: int) -> Iterator[int]:
        """Write new items, from the ``first`` of them, in batches: they count once the job's line says so.

        Gives the indices of those that are left out.
        """
        for lo in range(first, len(new), BATCH):
            indices = new[lo : lo + BATCH]
            slot = recorded.count + lo
            items, left_out = self._batch(range(slot, slot + len(indices)), indices)
            journal.ask(_put(recorded.number, {}, items))
            yield from left_out

    def name_unknown(self, index: int) -> str:
        """Why it can't be known whether that item has changed, for people."""
        payload = self.table.payloads_of([index])[0]
        return f"items[{index}]: {why_unstable(payload) or f'the journal does not say what {shown(payload)} was'}"

    def _adopt(self, reader: Reader, recorded: RecordedJob) -> list[Block]:
        """What the items were of a job that version 1 wrote, which did not say so.

        The same items in the same order are known by their hash; else ids and the payloads that were kept tell.
        """
        table = self.table
        ids = reader.ids(recorded)
        payloads = reader.payloads(recorded)
        left_out = [slot for slot, payload in enumerate(payloads) if isinstance(payload, NotKept)]
        if recorded.total == len(table) and ids == table.ids and recorded.payload_hash == hash_payloads(table.payloads):
            blocks = [*self._blocks()]
        else:
            unknown = sum(isinstance(payload, NotKept | Unreadable) for payload in payloads)
            if ids is None and unknown:
                raise JournalMismatchError(
                    f"job {recorded.id!r} in {reader.path}: expected the {recorded.total} items that it was recorded "
                    f"with, in the same order, got others; mpqueue 0.1 did not write down what {unknown} of them are, "
                    "so they can't be distinguished; nothing was changed; run it with those items, or call clear_job()"
                )
            blocks = []
            for lo in range(0, recorded.total, BLOCK):
                part = payloads[lo : lo + BLOCK]
                states = states_of(part)
                blocks.append(Block(states, None) if ids is None else Block(digests(ids[lo : lo + BLOCK]), states))
        for number, block in enumerate(blocks):
            left = tuple(slot - number * BLOCK for slot in left_out if slot // BLOCK == number)
            blocks[number] = block._replace(left_out=left)
        return blocks


class _Patches:
    """What changes in the blocks of a job's slots."""

    def __init__(self) -> None:
        #: By the first slot of a block and the place in it: identity, state, whether it is left out, id.
        self._items: dict[int, dict[int, tuple[bytes, bytes, bool, Any]]] = {}

    def add(self, indices: Sequence[int], slots: Sequence[int], block: Block, ids: list[Any] | None) -> None:
        """These items are now as the block says."""
        states, left = block.states, set(block.left_out)
        for nth, index in enumerate(indices):
            slot, at = slots[index], nth * SIZE
            item = (
                block.identities[at : at + SIZE],
                states[at : at + SIZE],
                nth in left,
                None if ids is None else ids[index],
            )
            self._items.setdefault(slot - slot % BLOCK, {})[slot % BLOCK] = item

    def blocks(
        self, reader: Reader, recorded: RecordedJob, adopted: list[Block] | None, *, has_ids: bool
    ) -> list[tuple[int, Unsealed, Unsealed | None]]:
        """The rows that are to be written: of those that changed; where it is ``adopted``, of all."""
        firsts = set(self._items)
        if adopted is not None:
            firsts.update(range(0, recorded.count, BLOCK))
        rows = []
        for first in sorted(firsts):
            block, ids = Block(b"", None), None
            if first < recorded.count:
                if adopted is not None:
                    block = adopted[first // BLOCK]
                else:
                    block = reader.block(recorded, first)
                ids = reader.ids_of_block(recorded, first)
            rows.append(self._patched(first, block, ids, has_ids=has_ids))
        return rows

    def _patched(
        self, first: int, block: Block, ids: list[Any] | None, *, has_ids: bool
    ) -> tuple[int, Unsealed, Unsealed | None]:
        items = self._items.get(first, {})
        count = max(block.size, max(items, default=-1) + 1)
        identities, states = bytearray(block.identities), bytearray(block.states)
        identities.extend(bytes(count * SIZE - len(identities)))
        states.extend(bytes(count * SIZE - len(states)))
        left = set(block.left_out)
        named = None
        if has_ids or ids is not None:
            named = [*(ids or ())]
            named += [None] * (count - len(named))
        for at, (identity, state, is_left_out, item_id) in items.items():
            identities[at * SIZE : (at + 1) * SIZE] = identity
            states[at * SIZE : (at + 1) * SIZE] = state
            left.discard(at)
            if is_left_out:
                left.add(at)
            if named is not None:
                named[at] = item_id
        keys = None if states == identities else bytes(states)
        return _block_row(first, Block(bytes(identities), keys, tuple(sorted(left))), named)


def _block_row(first: int, block: Block, ids: list[Any] | None) -> tuple[int, Unsealed, Unsealed | None]:
    try:
        named = None if ids is None else prepare(ids)
    except Exception as error:
        raise TypeError(f"items: expected ids that can be pickled for the journal, got {error}") from error
    return first, prepare(tuple(block)), named


def _put(number: int | None, columns: dict[str, Any], items: JobItems) -> Callable[[Any], int]:
    return lambda store: store.put_job(number, columns, items)


def _remove(number: int) -> Callable[[Any], None]:
    return lambda store: store.remove_job(number)


def _noted(blocks: Iterable[Block], left_out: set[int]) -> Iterator[Block]:
    """The same blocks; the slots that are left out are noted as they pass."""
    first = 0
    for block in blocks:
        left_out.update(first + at for at in block.left_out)
        yield block
        first += BLOCK


def _present(places: array[int], count: int) -> bytearray:
    """A 1 for each slot whose item was there last."""
    present = bytearray(count)
    for slot in places:
        present[slot] = 1
    return present


def _is_forgotten(identities: bytearray, slot: int) -> bool:
    return identities[slot * SIZE : (slot + 1) * SIZE] == NOBODY


def _in_order(places: array[int], present: bytearray, blocks: Iterable[Block]) -> tuple[Iterable[int], Iterator[Block]]:
    """The slots as the items were last, then those that are gone; and what they are, in that order."""
    identities, states = bytearray(), bytearray()
    for block in blocks:
        identities += block.identities
        states += block.states
    count = len(present)
    gone = array("I", (slot for slot in range(count) if not present[slot] and not _is_forgotten(identities, slot)))
    order = places + gone

    def pieces() -> Iterator[Block]:
        for lo in range(0, len(order), BLOCK):
            part = order[lo : lo + BLOCK]
            which = b"".join([identities[slot * SIZE : (slot + 1) * SIZE] for slot in part])
            state = b"".join([states[slot * SIZE : (slot + 1) * SIZE] for slot in part])
            yield Block(which, state)

    return order, pieces()
