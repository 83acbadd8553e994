"""What the network says of one photo, and what every kind of model can do with it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .segments import Segments
from .settings import Run, View

Size = tuple[int, int]


class Logits(NamedTuple):
    """One prediction of all windows of a photo, as arrays or tensors.

    Attributes:
        classes: Shape (W, K, classes + 1).
        masks: Shape (W, K, h, w).
    """

    classes: Any
    masks: Any


@dataclass
class Outputs:
    """What is kept of a network run.

    Attributes:
        steps (list[Logits]): Predictions before each of the last blocks, as far as
            they were asked for; the final one last.
        fitted (tuple[int, int]): Height and width of the resized photo in pixels.
        padded (tuple[int, int]): Those of the input with its padding.
        seconds (dict[str, float]): Time of `fit` (resizing) and of `network`.
        windows (object, optional): What the ONNX predictor knows of its windows.
    """

    steps: list[Logits]
    fitted: Size
    padded: Size
    seconds: dict[str, float] = field(default_factory=dict)
    windows: object = None

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        return sum(part.nbytes for step in self.steps for part in step)


class Model:
    """A model on the page.

    Attributes:
        name (str): For the page.
        task (str): 'semantic', 'panoptic' or 'instance'.
        classes (list[str]): Names.
        palette (list[list[int]]): RGB of each class.
        num_things (int): Classes below are things.
        thresholds (dict[str, float | int]): Those that act, with the model's own
            values.
        dtypes (list[str]): The first is where the page starts.
        merging (list[str]): 'off', 'own' and 'any', as far as there are; the first is
            where the page starts.
        steps (list[str]): Names of the predictions inside the network, final last;
            empty where the model shows none.
        confidences (list[str]): Measures of confidence; empty without.
        warning (str): What a viewer should know of it, such as an annealing that is
            not finished; empty without.
    """

    name: str
    task: str
    classes: list[str]
    palette: list[list[int]]
    num_things: int = 0
    thresholds: dict[str, float | int]
    dtypes: list[str]
    merging: list[str]
    steps: list[str]
    confidences: list[str]
    warning: str = ''

    def look(self, pixels: np.ndarray, run: Run) -> Outputs:
        """Run the network; one call at a time."""
        raise NotImplementedError

    def finish(self, outputs: Outputs, view: View, size: Size) -> Segments:
        """Turn outputs into segments of a photo of a size, height and width."""
        raise NotImplementedError

    def confidence(self, outputs: Outputs, view: View, size: Size) -> np.ndarray:
        """Return the confidence of each pixel, shape (H, W), from 0 to 1."""
        raise NotImplementedError

    def query_masks(self, outputs: Outputs, queries: list[int], size: Size):
        """Return mask probabilities, shape (steps, queries, H, W) uint8."""
        raise NotImplementedError

    def picture(self, pixels: np.ndarray, outputs: Outputs, view: View) -> np.ndarray:
        """Paint the result as the model's own inferencer does, (H, W, 3) uint8."""
        raise NotImplementedError

    def about(self) -> dict:
        """Describe the model to the page."""
        names = 'name task classes thresholds dtypes merging steps confidences warning'
        return {name: getattr(self, name) for name in names.split()}
