"""Packaging of eomt_mm, in the manner of the OpenMMLab projects."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def get_version():
    """Version in eomt_mm/version.py, read without importing the package."""
    namespace = {}
    exec((ROOT / 'eomt_mm/version.py').read_text(), namespace)
    return namespace['__version__']


def parse_requirements(*names):
    """Requirement lines of requirements/<name>.txt, without comments."""
    lines = []
    for name in names:
        text = (ROOT / f'requirements/{name}.txt').read_text()
        lines += [line.split('#')[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


class BuildWithMim(build_py):
    """Puts what `mim` looks for into eomt_mm/.mim.

    A wheel gets copies; an editable install gets links in the source tree, so that
    a changed config is the config `mim` finds.
    """

    mim_files = ('configs', 'tools', 'model-index.yml')

    def run(self):
        """Builds as usual, then fills eomt_mm/.mim."""
        super().run()
        base = ROOT if self.editable_mode else Path(self.build_lib)
        target = base / 'eomt_mm/.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in self.mim_files:
            if self.editable_mode:
                (target / name).symlink_to(os.path.join('..', '..', name))
            elif (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns('__pycache__')
                shutil.copytree(ROOT / name, target / name, ignore=ignore)
            else:
                shutil.copy(ROOT / name, target / name)


if __name__ == '__main__':
    setup(
        name='eomt_mm',
        version=get_version(),
        description='EoMT, segmentation with a plain ViT, native in OpenMMLab',
        long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
        long_description_content_type='text/markdown',
        license='Apache-2.0',
        keywords='computer vision, segmentation, vision transformer, OpenMMLab',
        packages=find_packages(include=['eomt_mm', 'eomt_mm.*']),
        cmdclass={'build_py': BuildWithMim},
        python_requires='>=3.10',
        install_requires=parse_requirements('runtime'),
        extras_require={
            # Neither stack of OpenMMLab: pip would put one over the other.
            'all': parse_requirements('runtime', 'optional', 'deploy', 'page', 'tests'),
            'deploy': parse_requirements('deploy'),
            'mim': parse_requirements('mminstall'),
            'stock': parse_requirements('mminstall'),
            'onedl': parse_requirements('onedl'),
            'optional': parse_requirements('optional'),
            'page': parse_requirements('page'),
            'tests': parse_requirements('deploy', 'page', 'tests'),
        },
        zip_safe=False,
    )
