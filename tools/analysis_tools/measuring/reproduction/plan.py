"""The rows of the paper's tables that are trained in miniature, and its figures.

A row is a config that is trained and a config that its checkpoint is tested with: the
weights of EoMT with and without masks have the same names. Rows of the first two tables
share trainings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

FOLDER = 'configs/demo/ladder'


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        names (tuple[str, ...]): Its names, one for each of the first columns.
        train (str): Config that is trained.
        test (str): Config that the result is tested with.
        quoted (Mapping[str, float]): The paper's figures by heading.
    """

    names: tuple[str, ...]
    train: str
    test: str
    quoted: Mapping[str, float]

    @property
    def name(self) -> str:
        """The names, joined."""
        return ' -> '.join(self.names)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title (str): Its heading.
        columns (tuple[str, ...]): Headings of the names of its rows.
        rows (tuple[Row, ...]): In the paper's order.
        scores (tuple[str, ...]): What is measured, keys of `runs.SCORES`.
        source (str): What the paper's figures are of.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    scores: tuple[str, ...] = ('PQ', 'mIoU')
    source: str = 'DINOv2 ViT-L, COCO panoptic, 640 x 640, an H100'


COST = ('parameters (M)', 'GFLOPs', 'FPS', 'PQ')
OOD = ('mIoU in distribution', 'mIoU out of distribution', 'AUPRC of unknown objects')


def _row(
    names: str | tuple, train: str, test: str, *quoted: float, headings: tuple = COST
) -> Row:
    names = (names,) if isinstance(names, str) else names
    train, test = (f'{FOLDER}/{name}.py' for name in (train, test))
    return Row(names, train, test, dict(zip(headings, quoted, strict=True)))


def configs(table_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map the configs that are trained for some tables to those of their tests."""
    found: dict[str, list[str]] = {}
    for name in table_names:
        for row in TABLES[name].rows:
            tests = found.setdefault(row.train, [])
            tests += [row.test] if row.test not in tests else []
    return {train: tuple(tests) for train, tests in found.items()}


STEP = 'step{}_scenes_panoptic'
NEVER = STEP.format('5') + '_never'
MASKED, FREE = STEP.format('4'), STEP.format('5')

# arXiv 2503.19108.
TABLES = {
    'annealing': Table(
        'Mask annealing (Table 7)',
        ('training', 'inference'),
        (
            _row(('masked', 'masked'), MASKED, MASKED, 316, 828, 61, 56.2),
            _row(('masked', 'unmasked'), MASKED, FREE, 316, 669, 128, 27.4),
            _row(('never masked', 'unmasked'), NEVER, FREE, 316, 669, 128, 53.2),
            _row(('annealed', 'unmasked'), FREE, FREE, 316, 669, 128, 56.0),
        ),
    ),
    'ladder': Table(
        'The ladder from ViT-Adapter + Mask2Former to EoMT (Table 1)',
        ('step',),
        tuple(
            _row(f'({i}) {name}', STEP.format(i), STEP.format(i), *quoted)
            for i, (name, *quoted) in enumerate(
                (
                    ('ViT-Adapter + Mask2Former', 349, 830, 29, 57.1),
                    ('without ViT-Adapter', 342, 700, 36, 56.7),
                    ('without pixel decoder', 337, 685, 61, 56.9),
                    ('without multi-scale features', 328, 673, 64, 56.7),
                    ('without Transformer decoder', 316, 828, 61, 56.2),
                    ('without masking = EoMT', 316, 669, 128, 56.0),
                )
            )
        ),
    ),
    'adaptive': Table(
        'Adaptive mask annealing, which the paper leaves open',
        ('annealing',),
        (
            _row('published schedule', FREE, FREE, headings=()),
            _row('adaptive', f'{FREE}_adaptive', FREE, headings=()),
        ),
        source='nothing, the paper has no such row',
    ),
    'ood': Table(
        'Out of distribution (Tables 8 and E)',
        ('model',),
        (
            _row(
                '(0) ViT-Adapter + Mask2Former',
                *['step0_scenes_semantic'] * 2,
                *(84.5, 78.0, 68.7),
                headings=OOD,
            ),
            _row(
                '(5) EoMT',
                *['step5_scenes_semantic'] * 2,
                *(84.2, 77.2, 89.7),
                headings=OOD,
            ),
        ),
        scores=OOD,
        source='DINOv2 ViT-L, trained on Cityscapes, out of distribution BRAVO',
    ),
}
# Which are trained unless others are asked for: they share their scenes and trainings.
DEFAULT = ('annealing', 'ladder')
