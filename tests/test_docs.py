"""The documentation names only what exists."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, MODELS, TRANSFORMS, init_default_scope

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.models.network import head_of

ROOT = Path(__file__).parents[1]
PAGES = [
    'README.md',
    'docs/parity.md',
    'docs/comparison.md',
    'docs/dirty_data.md',
    'docs/ladder.md',
    'docs/converting.md',
    'docs/deployment.md',
    'docs/fine_tuning.md',
    'docs/own_data.md',
    'docs/page.md',
    'docs/model_zoo.md',
    'docs/out_of_distribution.md',
    'docs/speed.md',
    'docs/token_merging.md',
    'docs/tools.md',
    'docs/results.md',
    'docs/structure.md',
    'docs/scale.md',
    'docs/security.md',
    'docs/out_of_distribution.md',
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


# Sources in which options of tools are declared.
OPTIONS = '\n'.join(
    path.read_text()
    for folder in ('eomt_mm/cli', 'tools/analysis_tools/measuring')
    for path in (ROOT / folder).rglob('*.py')
)


@pytest.mark.parametrize('page', PAGES)
def test_options_exist(page):
    """Each option that a page gives to a tool is one that the tool declares."""
    text = (ROOT / page).read_text().replace('\\\n', ' ')
    # A command ends with its line or its code span.
    commands = re.findall(r'(?<!_)(tools/[\w/]+\.(?:py|sh))([^\n`]*)', text)
    for tool, arguments in commands:
        source = (ROOT / re.sub(r'(dist|slurm)_(\w+)\.sh', r'\2.py', tool)).read_text()
        for option in re.findall(r'(?<![\w-])--[a-z][\w-]*', arguments):
            assert f"'{option}'" in source + OPTIONS, (tool, option)


def test_tests_exist():
    """Each test that the page of dirty data names is there, by file or function."""
    text = (ROOT / 'docs/dirty_data.md').read_text()
    files = {path.name: path.read_text() for path in (ROOT / 'tests').rglob('*.py')}
    names = set(re.findall(r'`(test_\w+(?:\.py)?)`', text))
    assert len(names) > 40
    for name in names:
        assert name in files or f'def {name}(' in ''.join(files.values()), name


def test_the_front_page_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 130


def test_the_front_page_quotes_the_zoo():
    """Score, weights and config of each row are those of a row of the zoo."""
    cell = r'(PQ|AP|mIoU) ([\d.]+) \| \[\w+\]\((https:[^)]+)\) \| \[config\]\((.*?)\)'
    rows = re.findall(cell, (ROOT / 'README.md').read_text())
    zoo = {
        (metric, score, url, config.removeprefix('../'))
        for metric, score, url, config in re.findall(
            cell, (ROOT / 'docs/model_zoo.md').read_text()
        )
    }
    assert len(rows) == 10 and set(rows) <= zoo


@pytest.mark.parametrize('family', ['eomt', 'ladder'])
def test_every_config_is_listed(family):
    listed = (ROOT / f'configs/{family}/README.md').read_text()
    for config in (ROOT / f'configs/{family}').glob('*.py'):
        assert f'({config.name})' in listed, config.name


def test_counts_of_the_ladder_are_those_of_its_metafile():
    counts = {}
    for family in ('ladder', 'eomt'):  # step (5) is EoMT itself
        text = (ROOT / f'configs/{family}/metafile.yml').read_text()
        for model in yaml.safe_load(text)['Models']:
            counts[model['Name']] = model['Metadata'].get('Parameters')
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


@pytest.mark.parametrize(
    ('page', 'number', 'classes'),
    [('docs/fine_tuning.md', 0, 2), ('docs/fine_tuning.md', 1, 3), ('README.md', 1, 3)],
)
def test_configs_for_own_classes(page, number, classes, tmp_path):
    """The examples load, and the model has as many classes as the data."""
    text = (ROOT / page).read_text()
    code = re.findall(r'```python\n(.*?)```', text, re.DOTALL)[number]
    path = tmp_path / 'own.py'
    path.write_text(code.replace('./eomt/', f'{ROOT}/configs/eomt/'))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head = head_of(model)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset = DATASETS.build(dict(dataset, lazy_init=True))
        assert len(dataset.metainfo['classes']) == head.num_classes == classes
    assert cfg.load_from.endswith('.pth') and cfg.train_cfg.max_iters == 5000


def test_views_of_the_results_page(tmp_path):
    """Two flips by two sizes, for the config they are written under."""
    text = (ROOT / 'docs/results.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    (code,) = (block for block in blocks if 'tta_pipeline' in block)
    path = tmp_path / 'views.py'
    path.write_text(code.replace('./eomt/', f'{ROOT}/configs/eomt/'))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    load, views = cfg.tta_pipeline
    assert load == cfg.test_dataloader.dataset.pipeline[0]
    built = TRANSFORMS.build(views)
    assert len(built.subroutines) == 4
    assert cfg.tta_model.type == 'eomt_mm.EoMTDetTTAModel'
    pack = cfg.test_dataloader.dataset.pipeline[-1]
    assert set(views.transforms[-1][0].meta_keys) == {
        *pack.meta_keys,
        'flip',
        'flip_direction',
    }


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
