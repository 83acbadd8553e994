"""tools/analysis_tools/show_results.py and the panels it draws."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli.panels import OPACITY, LabelMap, contact_sheet, enlarge, paint

NAMES = {0: 'sky', 1: 'ground'}
COLOURS = {0: (255, 0, 0), 1: (0, 0, 255)}


@pytest.fixture
def labels():
    ids = np.zeros((4, 4), int)
    ids[1:] = 1
    ids[3] = 255
    return LabelMap(ids, NAMES, COLOURS)


def test_legend_has_what_occurs_largest_first(labels):
    assert [*labels.legend().items()] == [('ground', (0, 0, 255)), ('sky', (255, 0, 0))]


def test_paint_mixes_the_colour_with_a_grey_photo(labels):
    painted = np.array(paint(Image.new('RGB', (40, 40), (100, 100, 100)), labels))
    base = (1 - OPACITY) * 100
    assert painted[0, 0].tolist() == [round(base + OPACITY * 255), base, base]
    assert painted[15, 0].tolist() == [base, base, round(base + OPACITY * 255)]
    void = painted[30:].reshape(-1, 3)
    assert {tuple(p) for p in void.tolist()} == {(0, 0, 0), (35, 35, 35)}  # hatched


def test_segments_are_outlined_and_the_clear_id_shows_the_photo():
    ids = np.full((120, 120), -1)
    ids[:60], ids[60:, :60] = 1000, 2000  # two segments of one class
    names, shades = dict.fromkeys((1000, 2000), 'sky'), {1000: (200, 0, 0)}
    shades[2000] = (100, 0, 0)
    photo = Image.new('RGB', (120, 120), (10, 200, 10))
    plain = LabelMap(ids, names, shades, clear=-1)
    assert plain.legend() == {'sky': (200, 0, 0)}  # the larger one
    outlined = LabelMap(ids, names, shades, outlined=True, clear=-1)
    painted, lines = (np.array(paint(photo, labels)) for labels in (plain, outlined))
    assert (painted[60:, 60:] == (10, 200, 10)).all()
    assert (lines[59] == 255).all() and (lines[60:, 59] == 255).all()
    differs = (painted != lines).any(-1)
    assert differs[20:40].any(), 'the name of the first segment'
    assert not differs[60:, 60:].any()


def test_enlarge():
    assert enlarge(Image.new('RGB', (64, 64))).size == (256, 256)
    assert enlarge(Image.new('RGB', (1280, 960))).size == (640, 480)
    assert enlarge(Image.new('RGB', (2000, 1))).size == (640, 1)


@pytest.mark.parametrize('rows, blocks', [(1, 1), (4, 1), (5, 2)])
def test_contact_sheet_has_room_for_all(rows, blocks):
    rows = [{'photo': Image.new('RGB', (100, 50))}] * rows
    sheet = contact_sheet(rows, {f'class {i}': (0, 0, 0) for i in range(9)})
    pixels = np.array(sheet.convert('L'))
    black = (pixels == 0).sum()
    assert black >= len(rows) * 256 * 128  # nothing is cut off or covered
    assert sheet.width == blocks * (256 + 6 + 24)


def test_writes_panels_and_a_sheet(tool, config, trained, tmp_path):
    argv = [str(config), str(trained), '--out', str(tmp_path / 'out')]
    written = tool('analysis_tools/show_results').main([*argv, '--number', '3'])
    assert [p.name for p in written] == ['0.png', '2.png', '3.png', 'panels.png']
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
        p.name for p in written
    )
    assert Image.open(written[0]).width == 3 * (256 + 12) + 12
    two = tool('analysis_tools/show_results').main([*argv, '--columns', 'prediction'])
    assert Image.open(two[0]).width < 3 * 256


def test_photos_are_turned_as_the_network_sees_them(
    tool, config, trained, ade_root, tmp_path
):
    """A red stripe on top, stored on its side with the note to turn it."""
    root = tmp_path / 'turned'
    for kind in ('images', 'annotations'):
        (root / kind / 'validation').mkdir(parents=True)
    upright = np.full((32, 48, 3), 90, np.uint8)
    upright[:8] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    stored = Image.fromarray(np.rot90(upright))
    stored.save(root / 'images/validation/0.jpg', exif=exif)
    labels = Image.fromarray(np.ones((32, 48), np.uint8))
    labels.save(root / 'annotations/validation/0.png')
    argv = [str(config), str(trained), '--out', str(tmp_path / 'out')]
    path, _ = tool('analysis_tools/show_results').main(
        [*argv, '--columns', 'photo', '--cfg-options', f'data_root={root}']
    )
    picture = np.asarray(Image.open(path)).astype(int)
    red = (picture[..., 0] > 200) & (picture[..., 1:] < 60).all(-1)
    ys, xs = np.nonzero(red)
    assert np.ptp(xs) > 350 and np.ptp(ys) < 100  # of 384 x 256


@pytest.mark.parametrize(
    'option, expected',
    [
        (['--columns', 'photo,depth'], 'photo,truth,prediction'),
        (['--number', '0'], 'at least 1'),
        (['--cfg-options', 'default_scope=mmpose'], 'default_scope'),
    ],
)
def test_bad_input(tool, config, trained, capsys, tmp_path, option, expected):
    argv = [str(config), str(trained), '--out', str(tmp_path / 'out'), *option]
    assert cli.run(tool('analysis_tools/show_results').main, argv) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_confidence_is_asked_of_a_semantic_eomt_alone(
    tool, config, trained, capsys, tmp_path
):
    argv = [str(config), str(trained), '--out', str(tmp_path / 'out')]
    argv += ['--confidence', 'class_score']
    assert cli.run(tool('analysis_tools/show_results').main, argv) == 2
    assert 'has no confidence maps' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def semantic(tmp_path_factory, run_tool, root):
    """Scenes out of distribution, the demo's model shrunk, and two checkpoints."""
    folder = tmp_path_factory.mktemp('semantic')
    options = ('--train', 2, '--val', 2, '--ood')
    run_tool('dataset_converters/make_scenes', folder / 'scenes', *options)
    config = folder / 'small.py'
    config.write_text(
        f'_base_ = {str(root / "configs/demo/eomt_scenes_ood.py")!r}\n'
        'model = dict(backbone=dict(timm_args=dict(embed_dim=32, depth=3)),\n'
        '             decode_head=dict(embed_dims=32))\n'
        "test_dataloader = dict(dataset=dict(sets=['fog_1', 'unknown'],\n"
        f'    data_root={str(folder / "scenes/ADEChallengeData2016")!r}))\n'
    )
    init_default_scope('mmseg')
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = MODELS.build(Config.fromfile(config).model).state_dict()
        torch.save(state, folder / f'{seed}.pth')
    return folder


@pytest.mark.parametrize('with_config', [False, True])
def test_confidence_of_one_model_and_of_two(tool, semantic, tmp_path, with_config):
    main = tool('analysis_tools/show_results').main
    config = str(semantic / 'small.py')
    argv = [config, str(semantic / '0.pth'), '--columns', 'photo,prediction']
    argv += ['--confidence', 'max_softmax']
    one = main([*argv, '--out', str(tmp_path / 'one')])
    assert [path.name for path in one] == [
        *('scene_000000.png', 'scene_000001.png'),
        *('scene_000000.png', 'scene_000001.png'),  # of the other folder
        'panels.png',
    ]
    assert len(set(one)) == 5
    second = [*([config] if with_config else []), str(semantic / '1.pth')]
    two = main([*argv, '--out', str(tmp_path / 'two'), '--second', *second])
    widths = [Image.open(paths[0]).width for paths in (one, two)]
    assert widths == [3 * (256 + 12) + 12, 5 * (256 + 12) + 12]
    first, panel = (np.array(Image.open(paths[2])) for paths in (one, two))
    confidences = [panel[40:250, 12 + i * 268 : i * 268 + 260] for i in (2, 3)]
    assert (first[40:250, 548:796] == confidences[0]).all()
    assert (confidences[0] != confidences[1]).any()


@pytest.mark.parametrize('second', [['none.pth'], ['none.py', '1.pth'], ['a'] * 3])
def test_second_model_that_is_not_there(tool, semantic, tmp_path, capsys, second):
    argv = [str(semantic / 'small.py'), str(semantic / '0.pth')]
    argv += ['--out', str(tmp_path / 'out'), '--confidence', 'rba', '--second', *second]
    try:
        status = cli.run(tool('analysis_tools/show_results').main, argv)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert second[0] in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_hues_of_confidence_and_of_a_difference(tool):
    module = tool('analysis_tools/show_results')
    pixels = np.array(module.grey(np.array([[0.0, 1.0]]), (4, 2)))
    assert pixels[0, 0].tolist() == [0] * 3 and pixels[0, 3].tolist() == [255] * 3
    pixels = np.array(module.two_hues(np.array([[-1.0, 0.0, 1.0]]), (3, 1)))
    assert pixels[0].tolist() == [[33, 102, 172], [255] * 3, [230, 97, 1]]
