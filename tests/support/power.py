"""What becomes of files when the power fails: from notes of all that was done to them, the files after a cut.

A file is what its name leads to, through its folder; both are written apart. What was written to a file is safe once
the file was synced, that it has its name (or none any more) once its folder was. Of the rest each part may be there or
not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

#: What is done to a folder, not to a file.
IN_FOLDER = ("create", "delete", "rename")


@dataclass(frozen=True)
class Note:
    """One thing that was done to a file or a folder; or ("told") that somebody was told that this is on disk.

    ``file`` is a path in the folder that is looked at, ``.`` that folder itself.
    """

    kind: str  #: write, truncate, sync, create, delete, rename, told
    file: str
    offset: int = 0
    data: bytes = b""  #: of "rename": the new name

    @property
    def name(self) -> str:
        """The new name, of a renaming."""
        return self.data.decode()


Keep = Callable[[Note], Note | None]


def after_cut(notes: Sequence[Note], keep: Keep) -> dict[str, bytes]:
    """The files after a cut behind these notes, by path. ``keep`` says what is there of a note that is not safe."""
    bodies = bodies_of(notes)
    synced = {body: at for at, (note, body) in enumerate(zip(notes, bodies, strict=True)) if note.kind == "sync"}
    names: dict[str, str] = {}
    contents: dict[str, bytearray] = {}
    for at, (note, body) in enumerate(zip(notes, bodies, strict=True)):
        if note.kind in ("sync", "told"):
            continue
        place = str(PurePath(note.file).parent) if note.kind in IN_FOLDER else body
        kept = note if at < synced.get(place, -1) else keep(note)
        if kept is None:
            continue
        if kept.kind in IN_FOLDER:
            _enter(kept, body, names)
        else:
            _change(kept, contents.setdefault(body, bytearray()))
            if body == note.file:  # it was there before the first note
                names.setdefault(note.file, body)
    return {
        name: bytes(contents.get(body, b""))
        for name, body in names.items()
        if not body.endswith("/") and (PurePath(name).parent == PurePath() or str(PurePath(name).parent) in names)
    }


def bodies_of(notes: Sequence[Note]) -> list[str]:
    """Which body each note is about: a name can lead to one after the other, and one can have several names."""
    leads: dict[str, str] = {}
    bodies = []
    for at, note in enumerate(notes):
        if note.kind == "create":
            leads[note.file] = f"{note.file}#{at}{'/' * (note.data == b'folder')}"
        body = leads.get(note.file, note.file)
        if body.endswith("/"):
            body = note.file if note.kind == "sync" else body
        bodies.append(body)
        if note.kind == "rename":
            leads[note.name] = body
        if note.kind in ("rename", "delete"):
            leads.pop(note.file, None)
    return bodies


def _enter(note: Note, body: str, names: dict[str, str]) -> None:
    if note.kind == "create":
        names[note.file] = body
        return
    names.pop(note.file, None)
    if note.kind == "rename":
        names[note.name] = body


def _change(note: Note, content: bytearray) -> None:
    if note.kind == "truncate":
        del content[note.offset :]
    content.extend(bytes(max(0, note.offset + len(note.data) - len(content))))
    content[note.offset : note.offset + len(note.data)] = note.data


def put(files: dict[str, bytes], folder: Path) -> None:
    """Write these files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def moments(notes: Sequence[Note]) -> Iterator[tuple[Sequence[Note], set[str]]]:
    """Each prefix that ends before or behind a sync, or behind somebody's being told; and what was told by then."""
    told: set[str] = set()
    for at, note in enumerate(notes):
        if note.kind == "sync":
            yield notes[:at], set(told)
        if note.kind == "told":
            told.add(note.file)
        if note.kind in ("sync", "told"):
            yield notes[: at + 1], set(told)
