"""Owns the two result files of the alt-text job: JSON Lines for programs, CSV for spreadsheets."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from _files import write_whole

#: The keys of a row, in the order of the CSV file's columns.
KEYS = ("id", "file", "status", "attempts", "proposedAlt", "labels", "thumbnail", "error")


def write_results(folder: Path, rows: Iterable[Mapping[str, Any]]) -> tuple[Path, Path]:
    """Write ``results.jsonl`` and ``results.csv``; what a row lacks is absent there, and an empty cell here."""
    kept = [{key: row[key] for key in KEYS if row.get(key) is not None} for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in kept)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, KEYS)
    writer.writeheader()
    writer.writerows({**row, "labels": "; ".join(row.get("labels", ()))} for row in kept)
    paths = folder / "results.jsonl", folder / "results.csv"
    write_whole(paths[0], lines.encode())
    write_whole(paths[1], table.getvalue().encode(errors="surrogateescape"))
    return paths
