"""What check_dataset.py says of TIFF photos of other bands than red, green and blue."""

import numpy as np
import pytest
from PIL import Image

from eomt_mm.own_data import describe_bands

# ExtraSamples is 2 (a plain alpha), as Pillow writes it, or 1 (associated alpha).
PLAIN, ASSOCIATED = (b'\x52\x01\x03\0\x01\0\0\0' + bytes([v, 0]) for v in (2, 1))


@pytest.mark.parametrize(
    ('mode', 'said'),
    [
        ('RGBA', '4 in TIFF files: the first three are red, green and blue, and the'),
        ('CMYK', '4 in TIFF files: inks (CMYK)'),
        ('LA', '2 in TIFF files: the first is grey, and the second its transparency'),
        ('RGB', None),
        ('L', None),
    ],
)
def test_bands_are_told(tmp_path, mode, said):
    paths = [str(tmp_path / name) for name in ('0.tif', '1.TIFF', '2.png')]
    for path in paths[:2]:
        Image.new(mode, (8, 8)).save(path, format='TIFF')
    Image.new('RGBA', (8, 8)).save(paths[2])
    found = describe_bands(paths)
    assert len(found) == (said is not None)
    for text in found:
        assert text.startswith(said) and text.endswith('(such as 0.tif)')


def test_pages_are_told(tmp_path):
    page, path = Image.new('RGB', (8, 8)), str(tmp_path / '0.tif')
    page.save(path, save_all=True, append_images=[page])
    (text,) = describe_bands([path])
    assert text == '2 pages in TIFF files: the first is read (such as 0.tif)'


def test_what_is_called_transparency_changes_the_colours(tmp_path):
    path = tmp_path / '0.tif'
    stored = np.full((8, 8, 4), 50, np.uint8)
    Image.fromarray(stored).save(path)
    content = path.read_bytes()
    assert content.count(PLAIN) == 1
    path.write_bytes(content.replace(PLAIN, ASSOCIATED))
    assert (np.asarray(Image.open(path).convert('RGB')) == 255).all()
    (text,) = describe_bands([str(path)])
    assert 'divided by the fourth, which the files call transparency' in text


def test_the_tool_reports_bands(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'fields')
    for path in root.glob('images/*/*'):
        Image.open(path).convert('RGBA').save(path.with_suffix('.tif'))
        path.unlink()
    check.main([str(root), '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().out
    assert said.count('bands       4 in TIFF files: the first three are red') == 1
    assert 'set_bands in docs/own_data.md' in said
