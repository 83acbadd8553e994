"""What MMEngine writes is read as it was; whatever asks for more is one line."""

import os
import pickle
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from eomt_mm import checkpoints
from eomt_mm.errors import UserError


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)
        self.name = f'{function.__name__} {arguments[-1]}'

    def __reduce__(self):
        return self.call


@pytest.fixture
def load(tmp_path):
    """Saves with torch and reads."""

    def roundtrip(value, **kwargs):
        torch.save(
            {'weights': torch.ones(2), 'value': value}, tmp_path / 'file.pth', **kwargs
        )
        return checkpoints.read(tmp_path / 'file.pth')['value']

    return roundtrip


@pytest.fixture(params=[True, False], ids=['zip', 'before 1.6'])
def training(request, tmp_path):
    """A checkpoint as MMEngine writes it, and its path."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = dict(
        meta=dict(
            epoch=0,
            iter=3,
            seed=0,
            cfg='a = 1\n',
            config='import os',
            dataset_meta=dict(
                classes=('a', 'b'), palette=[[1, 2, 3]], x=ConfigDict(y=1)
            ),
        ),
        state_dict=model.state_dict(),
        ema_state_dict={k: v.half() for k, v in model.state_dict().items()},
        optimizer=dict(**optimizer.state_dict(), loss_scaler=dict(scale=65536.0)),
        param_schedulers=[dict(milestones=Counter([1, 2, 2]), last_step=3)],
        message_hub=dict(
            log_scalars=OrderedDict(
                loss=HistoryBuffer([1.0, 2.0], [1, 1]), nothing=HistoryBuffer()
            ),
            runtime_info=OrderedDict(
                best=np.float64(0.5),
                step=np.int64(3),
                flag=np.bool_(True),
                table=np.arange(6).reshape(2, 3),
                turned=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
                text='zwölf',
                raw=b'\xff\x00',
            ),
            resumed_keys=OrderedDict(loss=True),
        ),
        parts={1, 2},
        shared=nn.Parameter(torch.ones(2)),
        empty=torch.zeros(0, 3),
        view=torch.arange(12.0).view(3, 4).t()[1:, :2],
    )
    path = tmp_path / 'iter_3.pth'
    torch.save(content, path, _use_new_zipfile_serialization=request.param)
    return content, path


def test_a_checkpoint_of_mmengine(training):
    saved, path = training
    loaded = checkpoints.read(path)
    for part in ('state_dict', 'ema_state_dict'):
        for key, value in saved[part].items():
            assert torch.equal(loaded[part][key], value)
            assert loaded[part][key].dtype == value.dtype
    assert loaded['state_dict']._metadata == saved['state_dict']._metadata
    for index, state in saved['optimizer']['state'].items():
        assert all(
            torch.equal(loaded['optimizer']['state'][index][key], value)
            for key, value in state.items()
        )
    groups = loaded['optimizer']['param_groups']
    assert groups == saved['optimizer']['param_groups']
    assert loaded['param_schedulers'] == saved['param_schedulers']
    ours = loaded['message_hub']['runtime_info']
    for key, value in saved['message_hub']['runtime_info'].items():
        assert type(ours[key]) is type(value)
        np.testing.assert_array_equal(ours[key], value)
        assert getattr(ours[key], 'dtype', None) == getattr(value, 'dtype', None)
    loss = loaded['message_hub']['log_scalars']['loss']
    assert type(loss) is HistoryBuffer and loss.mean() == 1.5
    assert loss.statistics('max') == 2.0
    assert loss.max_length == saved['message_hub']['log_scalars']['loss'].max_length
    assert len(loaded['message_hub']['log_scalars']['nothing'].data[0]) == 0
    assert loaded['meta']['dataset_meta'] == saved['meta']['dataset_meta']
    assert loaded['parts'] == {1, 2}
    assert torch.equal(loaded['shared'], saved['shared'].data)
    assert loaded['empty'].shape == (0, 3)
    assert torch.equal(loaded['view'], saved['view'])
    # What was read can be written and read again, by PyTorch's own means of today.
    torch.save(loaded, path)
    again = checkpoints.read(path)
    assert again['parts'] == {1, 2} and checkpoints.config_of(again) == 'a = 1\n'


def test_nothing_stays_allowed(training):
    before = {*torch.serialization.get_safe_globals()}
    checkpoints.read(training[1])
    assert {*torch.serialization.get_safe_globals()} == before


def test_nothing_that_another_library_does_matters(training):
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray]):
        checkpoints.read(training[1])
    torch.serialization.clear_safe_globals()
    checkpoints.read(training[1])


def test_tensors_can_stay_on_disk(training):
    saved, path = training
    loaded = checkpoints.read(path, mmap=True)
    for key, value in saved['state_dict'].items():
        assert torch.equal(loaded['state_dict'][key], value)


def test_the_config_is_text_that_mmengine_cannot_reach(training):
    loaded = CheckpointLoader.load_checkpoint(str(training[1]))
    assert 'config' not in loaded['meta'] and 'cfg' not in loaded['meta']
    assert loaded['meta'].get('cfg') is None
    with pytest.raises(UserError, match='is not run'):
        loaded['meta']['cfg']
    with pytest.raises(KeyError):
        loaded['meta']['other']
    assert checkpoints.config_of(loaded) == 'a = 1\n'


@pytest.mark.parametrize(
    'attack',
    [
        Calls(os.system, 'true'),
        Calls(eval, '1'),
        Calls(getattr, Calls(__import__, 'os'), 'system'),
        Calls(getattr, Calls(__import__, 'builtins'), 'eval'),
        Calls(getattr, HistoryBuffer, '__init__'),
        Calls(getattr, HistoryBuffer, '__subclasses__'),
        Calls(getattr, np.ndarray, 'tofile'),
        Calls(getattr, np.dtype, '__class__'),
        Calls(np.ndarray, (1,), np.dtype('O'), b'\x01' * 8),
        Calls(np.dtype, 'O', False, True),
        Calls(HistoryBuffer, [1], [1]),
        Calls(bytearray, 10**12),
        Calls(torch.UntypedStorage, 10**12),
        Calls(torch.Tensor, 10**6, 10**6),
        np.array([object()], dtype=object),
        np.array(['text']),
        np.zeros(1, dtype=[('a', 'f4')]),
    ],
    ids=lambda attack: getattr(attack, 'name', str(getattr(attack, 'dtype', ''))),
)
@pytest.mark.parametrize('zipped', [True, False])
def test_anything_else_is_refused(load, attack, zipped):
    with pytest.raises(UserError) as caught:
        load(attack, _use_new_zipfile_serialization=zipped)
    line = str(caught.value)
    assert 'holds more than weights' in line and '\n' not in line
    assert 'add_safe_globals' not in line and 'weights_only' not in line


def test_statistics_of_the_class_cannot_be_changed(load):
    history = HistoryBuffer([1.0], [1])
    history.__dict__['statistics_methods'] = {'mean': HistoryBuffer.max}
    before = dict(HistoryBuffer._statistics_methods)

    class Forged(HistoryBuffer):
        def __getstate__(self):
            return self.__dict__

    Forged.__module__, Forged.__qualname__ = (
        HistoryBuffer.__module__,
        HistoryBuffer.__qualname__,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.logging.history_buffer.HistoryBuffer', Forged)
        forged = Forged.__new__(Forged)
        forged.__dict__.update(history.__dict__)
        data = pickle.dumps(forged, protocol=2)
    assert b'statistics_methods' in data
    assert load(history).mean() == 1.0
    assert before == HistoryBuffer._statistics_methods


def test_an_endless_tensor_of_one_value(load):
    with pytest.raises(UserError, match='_rebuild_tensor_v2 with unusual arguments'):
        load(torch.zeros(1).expand(10**9))


def test_a_compressed_archive(tmp_path):
    torch.save({'a': torch.zeros(1000)}, tmp_path / 'a.pth')
    with (
        zipfile.ZipFile(tmp_path / 'a.pth') as source,
        zipfile.ZipFile(tmp_path / 'b.pth', 'w', zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match='compressed'):
        checkpoints.read(tmp_path / 'b.pth')


@pytest.mark.parametrize(
    'write',
    [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'PK'),
        lambda path: path.write_text('<html>'),
        lambda path: path.write_bytes(pickle.dumps({'a': np.ones(2)})),
        lambda path: path.write_bytes(pickle.dumps({'a': 1}, protocol=2)),
        lambda path: torch.save([1], path),
        lambda path: torch.save(torch.ones(1), path),
    ],
)
def test_other_files_are_one_line(tmp_path, write):
    path = tmp_path / 'file.pth'
    write(path)
    with pytest.raises(UserError) as caught:
        checkpoints.read(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_an_old_torch_is_refused(training, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    with pytest.raises(UserError, match='Install torch 2.6 or newer'):
        checkpoints.read(training[1])


def test_nan_is_refused_where_mmengine_loads(tmp_path):
    path = tmp_path / 'nan.pth'
    torch.save({'state_dict': {'a': torch.tensor([1.0, float('nan')])}}, path)
    with pytest.raises(UserError, match='NaN values in a'):
        CheckpointLoader.load_checkpoint(str(path))
    torch.save({'state_dict': {'a': torch.tensor([-float('inf'), float('inf')])}}, path)
    CheckpointLoader.load_checkpoint(str(path))  # legal in a buffer
