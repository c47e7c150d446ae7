"""Owns where the examples' pictures come from: the user's own folder, else what a package registry has."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _downloads import STAMPS, NotToBeHad, fetch_stamps, fetch_wheels
from _options import at_least_one

#: Where fetched pictures are kept: elsewhere with the environment variable, else in a folder that git ignores.
CACHE = Path(
    os.environ.get("MPQUEUE_EXAMPLES_CACHE", Path(__file__).parent.parent / ".cache" / "mpqueue-demo")
).resolve()
#: What counts as a picture in a folder.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"})


class NoPictures(Exception):
    """There are no pictures, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures, and where they are from."""

    source: str
    root: Path
    paths: tuple[Path, ...]

    def name(self, path: Path) -> str:
        """The picture's path inside its collection; of a file from elsewhere, its bare name."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name


def find_pictures(folder: Path | None = None, *, cache: Path = CACHE, say: Callable[[str], None] = print) -> Pictures:
    """The pictures in ``folder``; without one, Debian's stamps, or where these can't be had, those of two wheels.

    Raises:
        NoPictures: there are none, or none that can be fetched.
    """
    if folder is not None:
        return _own(folder.expanduser())  # zsh leaves the ~ of ``make demo PICTURES=~/Pictures`` as it is
    for source, fetch in ((f"Debian's {STAMPS}", fetch_stamps), ("scikit-image and scikit-learn", fetch_wheels)):
        try:
            root = fetch(cache, say)
        except NotToBeHad as reason:
            say(f"{source}: not to be had here ({reason}).")
        else:
            return Pictures(source, root, tuple(_pictures_in(root)))
    raise NoPictures("expected pictures from a package registry, got none; give a folder of your own: --pictures DIR")


def every_nth(pictures: Pictures, limit: int | None) -> Pictures:
    """At most ``limit`` of the pictures, spread evenly over all of them."""
    total = len(pictures.paths)
    if limit is None or limit >= total:
        return pictures
    return Pictures(pictures.source, pictures.root, tuple(pictures.paths[i * total // limit] for i in range(limit)))


def from_command_line(description: str, limit: int) -> tuple[Pictures, int]:
    """What a small example is asked for: pictures, and how many of them to take; ``limit`` is the default.

    Where there are no pictures, the program ends with the reason.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="a folder of your own; else some are fetched once")
    parser.add_argument("--limit", type=at_least_one, default=limit, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    try:
        return find_pictures(options.pictures), options.limit
    except NoPictures as reason:
        parser.exit(2, f"{parser.prog}: {reason}\n")


def _own(folder: Path) -> Pictures:
    if not folder.is_dir():
        raise NoPictures(f"expected a folder with pictures, got {str(folder)!r}, which is no folder")
    paths = tuple(_pictures_in(folder))
    if not paths:
        endings = " ".join(sorted(SUFFIXES))
        raise NoPictures(f"expected pictures in {str(folder)!r}, found no file that ends in one of {endings}")
    return Pictures(str(folder), folder, paths)


def _pictures_in(folder: Path) -> list[Path]:
    """All pictures under ``folder``, in the order of their names; hidden files and folders stay out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
