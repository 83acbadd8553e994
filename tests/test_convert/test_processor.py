"""What transformers is told of a model's images."""

import pytest
from mmengine.config import Config

from eomt_mm.convert.hugging_face import processor_config


@pytest.mark.parametrize(
    ('normalisation', 'expected'),
    [
        (
            dict(mean=[127.5] * 3, std=[51.0] * 3),
            dict(do_rescale=True, do_normalize=True, image_mean=[0.5] * 3),
        ),
        (dict(mean=None, std=None), dict(do_rescale=False, do_normalize=False)),
        ({}, dict(do_rescale=False, do_normalize=False, image_std=[1.0] * 3)),
    ],
)
def test_normalisation(normalisation, expected):
    preprocessor = dict(bgr_to_rgb=True, **normalisation)
    cfg = Config(dict(model=dict(data_preprocessor=preprocessor)))
    found = processor_config(cfg, dict(image_size=64))
    assert {key: found[key] for key in expected} == expected
