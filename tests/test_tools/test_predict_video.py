"""tools/analysis_tools/predict_video.py and the frames it reads and writes."""

from unittest import mock

import cv2
import numpy as np
import pytest
from PIL import Image

from eomt_mm import cli
from eomt_mm.datasets.frames import FolderFrames, VideoFrames, video_writer
from eomt_mm.errors import UserError

NAME = 'analysis_tools/predict_video'


@pytest.fixture
def frames(ade_root):
    """Eight photographs (32, 32, 3)."""
    paths = sorted(ade_root.glob('images/*/*.jpg'))
    return [np.asarray(Image.open(path)) for path in paths]


@pytest.fixture
def video(tmp_path, frames):
    path = tmp_path / 'ride.avi'
    with video_writer(path, 12) as writer:
        for frame in frames:
            writer.add(frame)
    return path


def read(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while (answer := capture.read())[0]:
        found.append(answer[1][..., ::-1])
    return capture.get(cv2.CAP_PROP_FPS), np.stack(found)


def test_a_video_comes_back(video, frames):
    found = list(VideoFrames(video))
    assert len(found) == 8 and VideoFrames(video).fps == 12
    assert np.abs(found[0].astype(int) - frames[0]).mean() < 12  # JPEG


@pytest.mark.parametrize('suffix', ['.mp4', '.avi'])
def test_every_frame_is_painted(tool, config, trained, video, tmp_path, suffix):
    out = tmp_path / f'seen{suffix}'
    argv = [str(config), str(trained), str(video), '--out', str(out), '--batch', '3']
    assert tool(NAME).main(argv) == 8
    fps, seen = read(out)
    assert seen.shape == (8, 32, 32, 3) and fps == 12
    assert np.abs(seen.astype(int) - read(video)[1]).mean() > 5


def test_batches_do_not_change_what_is_seen(tool, config, trained, video, tmp_path):
    seen = []
    for size in ('1', '5'):
        out = tmp_path / f'{size}.avi'
        argv = [str(config), str(trained), str(video), '--out', str(out)]
        tool(NAME).main([*argv, '--batch', size])
        seen.append(read(out)[1])
    assert (seen[0] == seen[1]).all()


def test_a_folder_of_frames(tool, config, trained, ade_root, tmp_path):
    out = tmp_path / 'seen.mp4'
    folder = ade_root / 'images/training'
    argv = [str(config), str(trained), str(folder), '--out', str(out), '--fps', '5']
    assert tool(NAME).main([*argv, '--frames', '3']) == 3
    fps, seen = read(out)
    assert len(seen) == 3 and fps == 5


def test_a_video_cut_short(tool, config, trained, video, tmp_path, capsys):
    cut = tmp_path / 'cut.avi'
    whole = video.read_bytes()
    cut.write_bytes(whole[: int(0.7 * len(whole))])
    out = tmp_path / 'seen.mp4'
    argv = [str(config), str(trained), str(cut), '--out', str(out)]
    assert cli.run(tool(NAME).main, argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'ends in frame' in error and 'of 8' in error and not out.exists()
    enough = error.rpartition('--frames ')[2]
    assert tool(NAME).main([*argv, '--frames', enough]) == int(enough) < 8


@pytest.mark.parametrize('name', ['cut', 'cut.mkv'])
def test_a_video_cut_short_under_another_name(video, tmp_path, name):
    whole = video.read_bytes()
    (tmp_path / name).write_bytes(whole[: int(0.7 * len(whole))])
    with pytest.raises(UserError, match='ends in frame . of 8'):
        list(VideoFrames(tmp_path / name))


def test_a_cut_video_whose_header_does_not_count(frames, tmp_path):
    """Its duration tells; that may be wrong, so that it is a warning."""
    whole, cut = tmp_path / 'ride.mkv', tmp_path / 'cut.mkv'
    size = frames[0].shape[1::-1]
    code = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(whole), cv2.CAP_FFMPEG, code, 12, size)
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no Matroska')
    for frame in 3 * frames:
        writer.write(frame)
    writer.release()
    content = whole.read_bytes()
    cut.write_bytes(content[: int(0.6 * len(content))])
    with mock.patch('eomt_mm.datasets.frames.print_log') as said:
        assert len(list(VideoFrames(whole))) == 24
        assert len(list(VideoFrames(cut, most=3))) == 3
        assert not said.called
        count = len(list(VideoFrames(cut)))
    (message,) = said.call_args.args
    assert count < 20 and f'{count} frames were read' in message
    assert 'about 24: is it cut short' in message


@pytest.mark.parametrize(
    ('source', 'out', 'expected'),
    [
        ('ride.avi', 'seen.gif', "ends in '.gif'"),
        ('text.mp4', 'seen.mp4', 'cannot be opened as a video'),
        ('empty', 'seen.mp4', 'has no frames'),
        ('sizes', 'seen.mp4', 'bring all to one size'),
    ],
)
def test_bad_input(
    tool, config, trained, video, tmp_path, capfd, source, out, expected
):
    (tmp_path / 'text.mp4').write_text('no video')
    for folder in ('empty', 'sizes'):
        (tmp_path / folder).mkdir()
    for side in (16, 24):
        Image.new('RGB', (side, side)).save(tmp_path / f'sizes/{side}.png')
    argv = [config, trained, tmp_path / source, '--out', tmp_path / out]
    assert cli.run(tool(NAME).main, [str(arg) for arg in argv]) == 2
    assert expected in capfd.readouterr().err
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--fps', '0'], 'more than 0'),
        (['--fps', 'nan'], 'more than 0'),
        (['--out', 'ride.mp4'], 'is the source'),
    ],
)
def test_options_without_meaning(tool, capsys, options, expected):
    argv = ['config.py', 'last.pth', 'ride.mp4', '--out', 'seen.mp4', *options]
    with pytest.raises(SystemExit):
        tool(NAME).parse_args(argv)
    assert expected in capsys.readouterr().err


def test_what_a_folder_holds_beside_frames(tmp_path):
    loads = [dict(type='mmcv.LoadImageFromFile', imdecode_backend='pillow')]
    for number in range(3):
        Image.new('RGB', (16, 16)).save(tmp_path / f'{number}.png')
    (tmp_path / '._1.png').write_bytes(b'no image')
    assert len(list(FolderFrames(tmp_path, None, loads))) == 3
    damaged = tmp_path / '1.png'
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(UserError, match='1.png is not an image that can be read'):
        list(FolderFrames(tmp_path, None, loads))
    assert len(list(FolderFrames(tmp_path, 1, loads))) == 1


def test_a_video_without_frames(tmp_path):
    path = tmp_path / 'none.avi'
    code = cv2.VideoWriter_fourcc(*'MJPG')
    cv2.VideoWriter(str(path), code, 10, (16, 16)).release()
    with pytest.raises(UserError, match='has no frames|cannot be opened'):
        list(VideoFrames(path))
