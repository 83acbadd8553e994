"""Pre-trained weights of shapes that timm does not expect are one line."""

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from eomt_mm.errors import UserError
from eomt_mm.models.pretrained import load_timm_weights

ARCH, ARGS = 'vit_tiny_patch16_224', dict(depth=1)


@pytest.mark.parametrize(
    'key, shape',
    (
        ('pos_embed', ()),
        ('pos_embed', (0,)),
        ('pos_embed', (1, 7, 192)),
        ('patch_embed.proj.weight', (2,) * 5),
        ('patch_embed.proj.weight', (192, 3, 0, 0)),
        ('cls_token', ()),
    ),
)
def test_odd_shapes(tmp_path, key, shape):
    weights = timm.create_model(ARCH, num_classes=0, **ARGS).state_dict()
    torch.save({**weights, key: torch.zeros(shape)}, tmp_path / 'vit.pth')
    with pytest.raises(UserError, match='does not hold weights'):
        load_timm_weights(ARCH, str(tmp_path / 'vit.pth'), ARGS)


@pytest.mark.parametrize('wrapped', [False, True])
def test_blocks_that_the_file_lacks(tmp_path, wrapped):
    # Weights of a classifier of another size: timm drops the classifier and no longer
    # says what else is missing.
    weights = timm.create_model(ARCH, num_classes=7, **ARGS).state_dict()
    torch.save(dict(state_dict=weights) if wrapped else weights, tmp_path / 'vit.pth')
    with pytest.raises(UserError, match='it has 1 blocks, expected 2'):
        load_timm_weights(ARCH, str(tmp_path / 'vit.pth'), dict(depth=2))
    assert load_timm_weights(ARCH, str(tmp_path / 'vit.pth'), ARGS)


def hub_that(monkeypatch, answer):
    """Let timm get its weights from `answer`, as if from the hub."""
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', answer)


def test_weights_of_the_hub_that_do_not_fit_are_no_failed_download(monkeypatch):
    weights = timm.create_model(ARCH, num_classes=0, depth=1).state_dict()
    hub_that(monkeypatch, lambda *_, **__: weights)
    assert load_timm_weights(ARCH, True, dict(depth=1)).keys() == weights.keys()
    with pytest.raises(
        UserError, match='do not fit the backbone: .*size mismatch.*timm_args'
    ):
        load_timm_weights(ARCH, True, dict(depth=1, embed_dim=96))


@pytest.mark.parametrize(
    'error',
    [ConnectionError('offline'), LocalEntryNotFoundError('offline'), Exception('?')],
)
def test_a_failed_download_names_the_hub(monkeypatch, error):
    def fail(*_, **__):
        raise error

    hub_that(monkeypatch, fail)
    with pytest.raises(UserError, match=r'cannot get .* from the hub'):
        load_timm_weights(ARCH, True, ARGS)
