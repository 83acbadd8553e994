"""setup.py, requirements/ and model-index.yml agree with the tree."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('runtime', 'mminstall', 'optional', 'deploy', 'page', 'tests')


def load_setup():
    spec = importlib.util.spec_from_file_location('packaging_setup', ROOT / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def metadata():
    """What setup.py hands to setuptools."""
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('setuptools.setup', lambda **kwargs: seen.update(kwargs))
        runpy.run_path(str(ROOT / 'setup.py'), run_name='__main__')
    return seen


def constraints():
    lines = load_setup().parse_requirements('constraints')
    return [Requirement(line) for line in lines]


def test_version(metadata):
    line = (ROOT / 'eomt_mm/version.py').read_text()
    assert f"__version__ = '{metadata['version']}'" in line
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    assert re.search(r'^## (\S+)', changelog, re.M).group(1) == metadata['version']


def test_every_package_folder_is_packaged(metadata):
    sources = (ROOT / 'eomt_mm').rglob('*.py')
    folders = {file.parent for file in sources if '.mim' not in file.parts}
    names = {'.'.join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(metadata['packages']) == names


def test_install_leaves_torch_and_openmmlab_alone(metadata):
    required = {Requirement(line).name for line in metadata['install_requires']}
    theirs = {'torch', 'torchvision', 'mmcv', 'mmengine', 'mmdet', 'mmsegmentation'}
    assert not required & theirs
    pinned = [line for line in metadata['install_requires'] if '==' in line]
    assert not pinned


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
def test_tested_versions_lie_in_the_ranges(python):
    tested = {}
    for requirement in constraints():
        if not requirement.marker or requirement.marker.evaluate(
            {'python_version': python}
        ):
            assert requirement.name not in tested, 'pinned twice'
            (pin,) = requirement.specifier
            assert pin.operator == '=='
            tested[requirement.name] = pin.version
    for line in load_setup().parse_requirements(*NAMES):
        requirement = Requirement(line)
        assert requirement.name in tested or not requirement.specifier
        if requirement.name in tested:
            assert tested[requirement.name] in requirement.specifier


def test_ruff_hook_is_the_ruff_of_the_environment():
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    (hook,) = (repo for repo in hooks['repos'] if 'ruff' in repo['repo'])
    (ruff,) = (str(r.specifier) for r in constraints() if r.name == 'ruff')
    assert ruff == '==' + hook['rev'].lstrip('v')


def test_model_index_and_metafiles():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    missing = [name for name in index['Import'] if not (ROOT / name).is_file()]
    assert not missing, f'model-index.yml lists {missing}'
    on_disk = {
        str(file.relative_to(ROOT)) for file in ROOT.glob('configs/*/metafile.yml')
    }
    assert set(index['Import']) == on_disk
    for name in index['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        collections = {entry['Name'] for entry in metafile['Collections']}
        names = [model['Name'] for model in metafile['Models']]
        assert len(set(names)) == len(names)
        for model in metafile['Models']:
            assert (ROOT / model['Config']).is_file(), model['Config']
            assert Path(model['Config']).stem == model['Name']
            assert model['In Collection'] in collections
            for result in model.get('Results', ()):
                assert {'Task', 'Dataset'} <= set(result)


def test_ci_runs_make_test():
    script = (ROOT / '.ci/run').read_text()
    assert re.findall(r'\bmake .*', script) == ['make test </dev/null']
    assert (ROOT / '.ci/run').stat().st_mode & 0o111


def test_editable_and_wheel_offer_mim_the_same_files(tmp_path, monkeypatch):
    module = load_setup()
    root, built = tmp_path / 'root', tmp_path / 'build'
    for name in ('configs', 'tools'):
        (root / name / '__pycache__').mkdir(parents=True)
        (root / name / 'a.py').write_text('x = 1\n')
    (root / 'model-index.yml').write_text('Import: []\n')
    monkeypatch.setattr(module, 'ROOT', root)
    monkeypatch.setattr(module.build_py, 'run', lambda self: None)

    command = object.__new__(module.BuildWithMim)
    command.build_lib = str(built)
    for editable, base in ((True, root), (False, built)):
        command.editable_mode = editable
        for _ in range(2):  # may be run again
            command.run()
        mim = base / 'eomt_mm/.mim'
        assert (mim / 'model-index.yml').read_text() == 'Import: []\n'
        assert (mim / 'configs/a.py').is_file() and (mim / 'tools/a.py').is_file()
        assert (mim / 'configs').is_symlink() == editable
    assert not (built / 'eomt_mm/.mim/tools/__pycache__').exists()
