"""Owns where a picture is filed: into the folder of the filed picture that the classifier finds most alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from _labels import best_labels

Scores = npt.NDArray[np.float32]

#: From this likeness on (a cosine, 1 is the same picture), a picture belongs into the folder of the most similar one.
ALIKE = 0.35


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the media library, with the pictures that were filed there by hand."""

    id: int
    path: str
    filed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filing:
    """Where a picture belongs: into a folder that is there (``move``) or into a new one (``create``)."""

    action: str
    folder_id: int | None
    folder_path: str | None
    new_folder_path: str | None
    confidence: float


class FiledPictures:
    """The pictures that were filed by hand: the folder of each, and what the classifier makes of it (one row each)."""

    def __init__(self, folders: Sequence[Folder], scores: Scores) -> None:
        self._folders = list(folders)
        self._mean = scores.mean(axis=0)
        self._directions = _directions(scores - self._mean)

    def place(self, scores: Scores) -> Filing:
        """The folder of the filed picture whose scores point the same way, seen from the mean of all filed pictures.

        Where none is alike, a new folder, named by the picture's best label.
        """
        likenesses = self._directions @ _directions(scores - self._mean)
        best = int(np.argmax(likenesses))
        if likenesses[best] >= ALIKE:
            folder = self._folders[best]
            return Filing("move", folder.id, folder.path, None, round(float(likenesses[best]), 2))
        label = best_labels(scores)[0]
        return Filing("create", None, None, f"new/{label.name}", round(label.probability, 2))


def _directions(rows: Scores) -> Scores:
    unit: Scores = rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-12)
    return unit
