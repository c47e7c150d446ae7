"""Owns what the original application has around its job queue, as small stand-ins with the same calls.

The original is an Electron program that asks a language model for alt text. Here the window is the terminal, and alt
text comes from the classifier of the main example. The two translated usage examples import from here what the
original imports from its services.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _filing import FiledPictures, Filing, Folder
from _labels import MAX_LENGTH, alt_text, best_labels
from _network import SqueezeNet
from _pictures import CACHE, Pictures
from _thumbnails import read_picture, write_thumbnail

#: How many folders there are to choose from, and how many pictures lie in each already.
FOLDERS, FILED = 6, 4


class WebContents:
    """The page in the window: what is sent to it is printed."""

    def send(self, channel: str, payload: Mapping[str, Any]) -> None:
        """Show a message as the page would, in one line."""
        print(f"{channel}  {payload['status']}  {payload['completed']}/{payload['total']}, {payload['failed']} failed")


class MainWindow:
    """The Electron window."""

    def __init__(self) -> None:
        self.web_contents = WebContents()


@dataclass(frozen=True, slots=True)
class AltText:
    """What the service for alt text answers."""

    alt_text: str


def media_library(pictures: Pictures) -> list[dict[str, Any]]:
    """The pictures as media items."""
    return [
        {"id": number, "filename": path.name, "path": str(path)} for number, path in enumerate(pictures.paths, start=1)
    ]


def filed_library(pictures: Pictures) -> tuple[list[Folder], Pictures]:
    """The largest folders of a collection with a few pictures each, and the pictures that are still to be filed."""
    by_folder: dict[Path, list[Path]] = {}
    for path in pictures.paths:
        by_folder.setdefault(path.parent, []).append(path)
    largest = sorted(by_folder.values(), key=len, reverse=True)[:FOLDERS]
    folders, unfiled = [], []
    for number, paths in enumerate(largest, start=1):
        filed = paths[: min(FILED, (len(paths) + 1) // 2)]
        folders.append(Folder(number, pictures.name(paths[0].parent), tuple(map(str, filed))))
        unfiled += paths[len(filed) :]
    return folders, Pictures(pictures.source, pictures.root, tuple(unfiled))


async def get_thumbnail_path(item: Mapping[str, Any]) -> Path:
    """The item's thumbnail in the cache; made where it is missing."""
    return _thumbnail(Path(item["path"]))


async def generate_alt_text(thumbnail_path: Path, *, max_length: int = MAX_LENGTH) -> AltText:
    """The classifier's best labels as a sentence."""
    return AltText(alt_text(best_labels(_scores(thumbnail_path)), max_length))


async def generate_alt_text_with_folder(
    thumbnail_path: Path,
    folders: Sequence[Folder],
    *,
    language_name: str,
    metadata: Mapping[str, Any],  # noqa: ARG001 - the classifier only looks
) -> Filing:
    """The folder of the filed picture that is most like this one; where none is, a new folder named by its label."""
    if language_name != "English":
        raise ValueError(f"expected 'English', the only language of the labels, got {language_name!r}")
    return _filed(tuple(folders)).place(_scores(thumbnail_path))


@functools.cache
def _network() -> SqueezeNet:
    """Loaded once a process. ``setup=`` does this better; the original has no such thing."""
    return SqueezeNet.load()


def _thumbnail(original: Path) -> Path:
    version = f"{original.resolve()} {original.stat().st_mtime_ns}".encode(errors="surrogateescape")
    thumbnail = CACHE / "thumbnails" / f"{hashlib.sha256(version).hexdigest()[:16]}.jpg"
    if not thumbnail.exists():
        write_thumbnail(read_picture(original), thumbnail)
    return thumbnail


def _scores(picture: Path) -> npt.NDArray[np.float32]:
    return _network().scores(read_picture(picture))


@functools.cache
def _filed(folders: tuple[Folder, ...]) -> FiledPictures:
    filed = [(folder, path) for folder in folders for path in folder.filed]
    return FiledPictures([folder for folder, _ in filed], np.stack([_scores(Path(path)) for _, path in filed]))
