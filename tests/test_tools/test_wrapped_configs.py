"""Training and testing by any config that MMEngine takes, on the tiny stock model."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from eomt_mm import cli

WRAPPERS = {
    'repeat': lambda d: dict(type='RepeatDataset', times=2, dataset=d),
    'concat': lambda d: dict(type='ConcatDataset', datasets=[d]),
    'twice': lambda d: dict(type='ConcatDataset', datasets=[d, d]),
    'nested': lambda d: dict(
        type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=1, dataset=d)]
    ),
}


@pytest.fixture
def variant(config, tmp_path):
    """Writes the tiny config with changes; returns its path."""

    def write(change, name='variant.py'):
        cfg = Config.fromfile(config)
        change(cfg)
        path = tmp_path / name
        cfg.dump(path)
        return str(path)

    return write


def wrap(kind, *splits):
    def change(cfg):
        for split in splits:
            loader = cfg[f'{split}_dataloader']
            loader.dataset = WRAPPERS[kind](loader.dataset)

    return change


@pytest.mark.parametrize(
    'kind',
    [
        'nested',
        *(pytest.param(k, marks=pytest.mark.slow) for k in WRAPPERS if k[0] != 'n'),
    ],
)
def test_training_and_test_in_wrappers(tool, variant, tmp_path, kind):
    path = variant(wrap(kind, 'train', 'val', 'test'))
    runner = tool('train').main([path, '--work-dir', str(tmp_path / 'run')])
    assert runner.iter == 2
    checkpoint = str(tmp_path / 'run/iter_2.pth')
    for extra in ([], ['--tta'], ['--show-dir', str(tmp_path / 'show')]):
        argv = [path, checkpoint, '--work-dir', str(tmp_path / 'test'), *extra]
        assert 0 <= tool('test').main(argv)['mIoU'] <= 100
    out = str(tmp_path / 'panels')
    assert tool('analysis_tools/show_results').main([path, checkpoint, '--out', out])


def test_repetition_leaves_the_score(tool, variant, trained, tmp_path):
    scores = [
        tool('test').main([path, str(trained), '--work-dir', str(tmp_path / 'w')])
        for path in (
            variant(lambda cfg: None, 'plain.py'),
            variant(wrap('repeat', 'test')),
        )
    ]
    assert scores[0] == scores[1]


def by_epochs(cfg):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)


def test_a_training_by_epochs_ends_and_saves(tool, variant, tmp_path):
    path = variant(by_epochs)
    runner = tool('train').main([path, '--work-dir', str(tmp_path / 'run')])
    assert (runner.epoch, runner.iter, runner.max_iters) == (2, 4, 4)
    saved = sorted(p.name for p in (tmp_path / 'run').glob('*.pth'))
    assert saved == ['epoch_1.pth', 'epoch_2.pth']
    meta = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=False)['meta']
    assert (meta['epoch'], meta['iter']) == (2, 4)


def test_a_training_by_epochs_is_resumed(tool, variant, tmp_path):
    run = str(tmp_path / 'run')
    tool('train').main([variant(by_epochs), '--work-dir', run])
    (tmp_path / 'run/epoch_2.pth').unlink()
    runner = tool('train').main([variant(by_epochs), '--work-dir', run, '--resume'])
    assert (runner.epoch, runner.iter) == (2, 4)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['train_dataloader.dataset.indices=0'], 'the train dataset is empty'),
        (
            [
                'train_dataloader.batch_size=5',
                'train_dataloader.drop_last=True',
                'train_dataloader.sampler.type=DefaultSampler',
                'train_cfg.type=EpochBasedTrainLoop',
                'train_cfg.max_epochs=1',
            ],
            '4 images make no whole batch of 5',
        ),
        (['train_dataloader.dataset.metainfo.classes=cat'], 'needs a comma'),
        (['train_dataloader.dataset.metainfo.classes=[a,a,b]'], "has 'a' twice"),
        (['train_dataloader.dataset.metainfo.classes=[a,,b]'], "has the name ''"),
        (['train_dataloader.dataset.metainfo.classes=[]'], 'has no names'),
        (['train_dataloader.dataset.metainfo=names.txt'], "metainfo is 'names.txt'"),
        (['train_dataloader.dataset.indices=[9]'], 'indices names an image that'),
        (['train_dataloader.batch_size=0'], 'batch_size is 0: expected'),
        (['val_evaluator=None'], 'val_evaluator of the config is missing or None'),
        (['val_evaluator=[]'], 'val_evaluator has no metric: set one'),
        (['val_evaluator.type='], 'expected a dict with a type'),
        (['val_evaluator.type=CocoMetric'], 'which scores results of mmdet'),
        (['train_dataloader.dataset.data_prefix=images'], "data_prefix is 'images'"),
        (['train_dataloader.dataset.pipeline=[]'], 'has to end with PackSegInputs'),
    ],
)
def test_nothing_to_train_on_is_one_line(tool, config, tmp_path, capsys, options, said):
    argv = [str(config), '--work-dir', str(tmp_path), '--cfg-options', *options]
    assert cli.run(tool('train').main, argv) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and said in line


def test_options_of_loaders_that_pytorch_refuses_together(tool, config, tmp_path):
    loader = dict(batch_sampler=dict(type='AspectRatioBatchSampler'), drop_last=True)
    cfg = Config(dict(train_dataloader=dict(num_workers=2, timeout=60, **loader)))
    cli.fill_in(cfg)
    assert cfg.train_dataloader == dict(
        num_workers=2,
        timeout=60,
        batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True),
    )
    options = ['timeout=60', 'multiprocessing_context=fork', 'prefetch_factor=2']
    options = [f'train_dataloader.{option}' for option in options]
    argv = [str(config), '--work-dir', str(tmp_path), '--cfg-options', *options]
    assert tool('train').main(argv).iter == 2


@pytest.mark.parametrize('palette', [None, [[9, 9, 9]]])
def test_missing_colours(tool, variant, trained, tmp_path, palette):
    def change(cfg):
        for split in ('train', 'val', 'test'):
            metainfo = cfg[f'{split}_dataloader'].dataset.metainfo
            del metainfo['palette']
            if palette:
                metainfo['palette'] = palette

    out = str(tmp_path / 'panels')
    argv = [variant(change), str(trained), '--out', out]
    assert tool('analysis_tools/show_results').main(argv)


def test_predictions_without_labels(tool, variant, trained, ade_root, tmp_path):
    def change(cfg):
        cfg.test_evaluator = dict(
            type='IoUMetric', format_only=True, output_dir=str(tmp_path / 'out')
        )
        dataset = cfg.test_dataloader.dataset
        dataset.data_prefix = dict(img_path='images/validation', seg_map_path='none')

    argv = [variant(change), str(trained), '--work-dir', str(tmp_path / 'w')]
    tool('test').main(argv)
    assert len(list((tmp_path / 'out').glob('*.png'))) == 4


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,  # of a busy machine
    ],
)
@given(
    order=st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=3),
    times=st.integers(0, 2),
    indices=st.sampled_from([None, 0, 1, 3]),
)
def test_any_nesting_trains_or_says_why(
    tool, config, tmp_path, capsys, order, times, indices
):
    cfg = Config.fromfile(config)
    dataset = cfg.train_dataloader.dataset
    if indices is not None:
        dataset.indices = indices
    dataset = dict(type='RepeatDataset', times=times, dataset=dataset)
    for kind in order:
        dataset = WRAPPERS[kind](dataset)
    cfg.train_dataloader.dataset = dataset
    path = tmp_path / 'any.py'
    cfg.dump(path)
    runs = []
    code = cli.run(
        lambda argv: runs.append(tool('train').main(argv)),
        [str(path), '--work-dir', str(tmp_path / 'run')],
    )
    said = capsys.readouterr().err
    if times == 0 or indices == 0:
        assert code == 2 and 'the train dataset is empty' in said
    else:
        assert code == 0 and runs[0].iter == 2


def test_scores_are_written_for_wrapped_tests(tool, variant, trained, tmp_path):
    path = variant(wrap('nested', 'test'))
    scores = tool('test').main([path, str(trained), '--work-dir', str(tmp_path)])
    (written,) = tmp_path.glob('*/*.json')
    assert json.loads(written.read_text())['mIoU'] == scores['mIoU']
