"""`eomt_mm.deploy` where neither PyTorch nor OpenMMLab is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eomt_mm.deploy import Predictor
from eomt_mm.deploy.painting import paint
from eomt_mm.deploy.predictor import load_photo

# Packages and the shared libraries that lie beside them.
ALONE = ('numpy', 'numpy.libs', 'PIL', 'pillow.libs', 'onnxruntime')
NEEDS = ('packaging', 'flatbuffers', 'google', 'coloredlogs', 'humanfriendly', 'sympy')


@pytest.fixture
def bare(tmp_path, root):
    """`bare(code)` runs Python with NumPy, Pillow and ONNX Runtime alone."""
    folder = tmp_path / 'site'
    folder.mkdir()
    for name in (*ALONE, *NEEDS):
        spec = find_spec(name.partition('.')[0].replace('pillow', 'PIL'))
        if spec is None:
            continue
        (where, *_) = spec.submodule_search_locations
        found = Path(where).with_name(name)
        if found.is_dir():
            (folder / name).symlink_to(found)

    def run(code, *argv):
        start = f'import sys; sys.path += [{str(root)!r}, {str(folder)!r}]\n'
        command = [sys.executable, '-I', '-S', '-c', start + code, *map(str, argv)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_the_command_runs(bare, exported, photos, tmp_path):
    model, out = exported('panoptic').onnx, tmp_path / 'out.png'
    code = (
        'from eomt_mm.deploy.__main__ import main\n'
        'status = main(sys.argv[1:])\n'
        "frameworks = {'torch', 'mmengine', 'mmcv', 'onnx', 'scipy', 'cv2'}\n"
        'assert not frameworks & sys.modules.keys()\n'
        'sys.exit(status)'
    )
    done = bare(code, model, photos[1], '--out', out)
    assert done.returncode == 0, done.stderr
    photo, predictor = load_photo(photos[1]), Predictor(model)
    expected = np.asarray(paint(photo, predictor(photos[1]), predictor.meta))
    assert (np.asarray(Image.open(out)) != expected).mean() < 1e-3


def test_what_needs_a_framework_says_so(bare):
    done = bare('import eomt_mm.registry')
    assert "No module named 'mmengine'" in done.stderr


def test_a_broken_framework_is_not_passed_over(bare, tmp_path):
    """Absent is one thing; an import that fails is a defect to be seen."""
    (tmp_path / 'site/mmengine').mkdir()
    (tmp_path / 'site/mmengine/__init__.py').write_text('import no_such_part')
    done = bare('import eomt_mm.deploy')
    assert done.returncode == 1 and "No module named 'no_such_part'" in done.stderr


def test_onnxruntime_is_missing(bare, exported, photos, tmp_path):
    (tmp_path / 'site/onnxruntime').unlink()
    code = 'from eomt_mm.deploy.__main__ import main; sys.exit(main(sys.argv[1:]))'
    done = bare(code, exported('panoptic').onnx, photos[0])
    assert done.returncode == 2
    assert done.stderr == (
        'error: onnxruntime is not installed: pip install onnxruntime\n'
    )
