"""A made-up BRAVO tree: images, ground truth, and a submission of noise."""

import numpy as np
from PIL import Image

from eomt_mm.datasets.bravo import SUBSETS, images_of
from eomt_mm.evaluation.bravo import pair_of


def write_tree(images, truth, number=3):
    """Write images of each subset, and their ground truth."""
    rng = np.random.default_rng(0)
    for name, subset in SUBSETS.items():
        for i in range(number):
            base = f'{subset.folder}/town/{name}_{i}'
            size = (40, 72 + i)
            labels = rng.integers(0, 19, size).astype(np.uint8)
            labels[:2] = 255
            mask = (rng.random(size) < 0.2).astype(np.uint8)
            photo = rng.integers(0, 255, (*size, 3), np.uint8)
            for path, array in (
                (images / f'{base}{subset.image}', photo),
                (truth / f'{base}{subset.labels}', labels),
                (truth / f'{base}{subset.mask}', mask),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)


def write_noise(images, truth, out):
    """Write a submission that is right more often where it is sure."""
    rng = np.random.default_rng(1)
    for name, _, base in images_of(images):
        labels = np.array(Image.open(truth / f'{base}{SUBSETS[name].labels}'))
        confidence = rng.integers(0, 65536, labels.shape)
        right = rng.random(labels.shape) < confidence / 65536
        noise = rng.integers(0, 19, labels.shape)
        predicted = np.where(right & (labels < 19), labels, noise)
        pred, conf = pair_of(out, name, base)
        pred.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(predicted.astype(np.uint8)).save(pred)
        Image.fromarray(confidence.astype(np.uint16)).save(conf)
