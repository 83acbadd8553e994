"""The file in which a calibration keeps its threshold."""

import pytest

from eomt_mm.errors import UserError
from eomt_mm.models.token_merging.calibration import read_threshold


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ('{"threshold": 0.5', 'is not a calibration'),
        ('[0.5]', 'is not a calibration'),
        ('{"threshold": 0.5}', "'local_block'"),
        ('[' * 100_000, 'is not a calibration'),
        ('{"threshold": 1%s}' % ('0' * 400), 'is not a calibration'),
        ('{"threshold": 0.5, "local_block": 2, "window": 2}', 'block 2'),
    ],
)
def test_calibration_files_that_do_not_fit(tmp_path, content, expected):
    path = tmp_path / 'algm.json'
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        read_threshold(str(path), 1, 2)
