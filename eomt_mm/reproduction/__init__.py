"""The paper's tables in miniature: what is trained, how runs are kept, the report."""

from .jobs import Failure, run_jobs
from .plan import TABLES, Row, Table
from .report import Report
from .runs import Recipe, Run

__all__ = [
    'TABLES',
    'Failure',
    'Recipe',
    'Report',
    'Row',
    'Run',
    'Table',
    'run_jobs',
]
