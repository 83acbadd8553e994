"""The documentation names only what exists."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, MODELS, init_default_scope

from eomt_mm import cli
from eomt_mm.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = [
    'README.md',
    'docs/parity.md',
    'docs/comparison.md',
    'docs/ladder.md',
    'docs/converting.md',
    'docs/deployment.md',
    'docs/fine_tuning.md',
    'docs/model_zoo.md',
    'docs/speed.md',
    'docs/token_merging.md',
    'configs/eomt/README.md',
    'configs/ladder/README.md',
]


@pytest.mark.parametrize('page', PAGES)
def test_links_and_files_exist(page):
    text = (ROOT / page).read_text()
    assert '@@' not in text
    targets = re.findall(r'\]\((?!http)([^)#]+)\)', text)
    targets += re.findall(r'^!\[.*\]\((?!http)([^)]+)\)', text, re.MULTILINE)
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), target
    for path in re.findall(r'\b((?:tools|configs)/[\w/]+\.(?:py|sh))', text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r'`(eomt_mm/[\w/]+(?:\.py|/))`', text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize('family', ['eomt', 'ladder'])
def test_every_config_is_listed(family):
    listed = (ROOT / f'configs/{family}/README.md').read_text()
    for config in (ROOT / f'configs/{family}').glob('*.py'):
        assert f'({config.name})' in listed, config.name


def test_counts_of_the_ladder_are_those_of_its_metafile():
    models = yaml.safe_load((ROOT / 'configs/ladder/metafile.yml').read_text())
    counts = {m['Name']: m['Metadata']['Parameters'] for m in models['Models']}
    for page in ('docs/ladder.md', 'configs/ladder/README.md'):
        rows = re.findall(
            r'\| (\d+(?:,\d{3})+) \|.*\((?:.*/)?(\w+)\.py\)', (ROOT / page).read_text()
        )
        assert len(rows) >= 6
        for count, name in rows:
            assert int(count.replace(',', '')) == counts[name], name


def test_the_zoo_quotes_what_the_metafile_quotes():
    text = (ROOT / 'docs/model_zoo.md').read_text()
    models = yaml.safe_load((ROOT / 'configs/eomt/metafile.yml').read_text())['Models']
    quoted = {m['Name']: m['Results'][0]['Metrics'] for m in models if 'Results' in m}
    rows = re.findall(r'\| (PQ|AP|mIoU) ([\d.]+) \|.*/([\w]+)\.py\) \|', text)
    assert len(rows) == 14 + 7
    for metric, score, name in rows:
        ((known, value),) = quoted[name].items()
        assert (known.removeprefix('mask '), str(value)) == (metric, score), name
        assert f'python tools/test.py configs/eomt/{name}.py {name}.pth\n' in text
    repositories = set(re.findall(r'huggingface.co/tue-mps/(\w+)\)', text))
    assert len(repositories) == len(rows)
    for repository in repositories:
        assert f'eomt2mm.py {repository}/pytorch_model.bin ' in text, repository


@pytest.mark.parametrize('number', [0, 1])
def test_configs_for_own_classes(number, tmp_path):
    """The examples of fine-tuning: they load, and the model has as many classes."""
    text = (ROOT / 'docs/fine_tuning.md').read_text()
    code = re.findall(r'```python\n(.*?)```', text, re.DOTALL)[number]
    path = tmp_path / 'own.py'
    path.write_text(code.replace('./eomt/', f'{ROOT}/configs/eomt/'))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head = model.panoptic_head if number == 0 else model.decode_head
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset = DATASETS.build(dict(dataset, lazy_init=True))
        assert len(dataset.metainfo['classes']) == head.num_classes == number + 2
    assert cfg.load_from.endswith('.pth') and cfg.train_cfg.max_iters == 5000


def test_a_short_training_of_dinov3():
    """What the page says of the first block, with the options it gives."""
    text = (ROOT / 'docs/fine_tuning.md').read_text()
    words = re.search(r'```bash\n(--cfg-options.*?)```', text, re.DOTALL)[1]
    path = ROOT / 'configs/eomt/eomt_dinov3_vitl_ade20k.py'
    parser = argparse.ArgumentParser()
    cli.add_common_options(parser)
    args = parser.parse_args([str(path), *shlex.split(words.replace('\\\n', ''))])
    short, published = cli.load_config(args), Config.fromfile(path)
    assert short.param_scheduler.warmup == (200, 300)
    assert short.train_cfg.max_iters == 5000

    def windows(cfg, max_iters):
        hook = HOOKS.build(cfg.custom_hooks[0])
        return hook.windows(cfg.model.backbone.num_blocks, max_iters)

    assert windows(published, 6100)[0] == (0, 3000)
    with pytest.raises(UserError, match='first_block'):
        windows(published, 6000)
    assert windows(short, 5000)[0] == (833, 1667)


def test_every_test_that_the_parity_page_names_exists():
    sources = '\n'.join(p.read_text() for p in (ROOT / 'tests').rglob('*.py'))
    files = {p.name for p in (ROOT / 'tests').rglob('*.py')}
    for name in re.findall(r'`(test_\w+)`', (ROOT / 'docs/parity.md').read_text()):
        assert f'def {name}(' in sources, name
    for name in re.findall(r'(test_\w+\.py)`', (ROOT / 'docs/parity.md').read_text()):
        assert name in files, name
