"""One case: all contenders are alternated, compared and put into rows."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from eomt_mm.errors import UserError

from .check import compare
from .measure import Clock, Outcome, Work, alternate, first_line, memory_of, peak_memory
from .rows import Row


@dataclass
class Contest:
    """One case and its contenders, of which the first is the reference.

    Attributes:
        case (str): Name of the work.
        images (int): Images in one call.
        contenders (Mapping[str, Callable]): Functions that make inputs and models of a
            contender and return the function that does the work, or raise.
        exact (set[str]): Contenders whose results must equal those of the first.
        operations (float, optional): Multiply-accumulate operations of one call.
        rates (Mapping[str, float]): Operations that the device can do in a second, by
            contender.
    """

    case: str
    images: int
    contenders: Mapping[str, Callable[[], Work]]
    exact: set[str] = field(default_factory=set)
    operations: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Conditions of the measurement.

    Attributes:
        device (torch.device): Device of the computation.
        rounds (int): Measured calls of each contender.
        warmup (int): Calls of each before them.
        fresh (Callable, optional): Returns the command that measures a contender's
            memory in a process of its own. None leaves memory out.
        clock (Callable): Seconds of a CPU. Defaults to `time.perf_counter`.
    """

    device: torch.device
    rounds: int
    warmup: int
    fresh: Callable[[str], list[str]] | None = None
    clock: Clock = time.perf_counter


def hold(contest: Contest, plan: Plan) -> tuple[list[Row], list[str]]:
    """Measure one case.

    Args:
        contest (Contest): The case.
        plan (Plan): Conditions of the measurement.

    Returns:
        tuple[list[Row], list[str]]: A row for each contender, including those that
        failed, and the names of those whose results must not differ but do.
    """
    rows = {who: Row(contest.case, who) for who in contest.contenders}
    # First, so that one that asks for more memory than there is never runs here.
    if plan.fresh and plan.device.type == 'cpu' and sys.platform == 'linux':
        for who, row in rows.items():
            _set_memory(row, *memory_of(plan.fresh(who)))
    work = {}
    for who, make in contest.contenders.items():
        if rows[who].error is None:
            try:
                work[who] = make()
            # One that cannot be built gets a row that says why; the others go on.
            except Exception as error:
                rows[who].error = first_line(error)
    outcomes = alternate(work, plan.rounds, plan.warmup, plan.device, plan.clock)
    for who, outcome in outcomes.items():
        rows[who].error = outcome.error
        if outcome.error is None:
            _set_time(rows[who], contest, outcome)
            if plan.fresh and plan.device.type == 'cuda':
                _set_memory(rows[who], peak_memory(work[who], plan.device), None)
    differing = _compare_all(rows, outcomes, contest.exact)
    return list(rows.values()), differing


def _set_memory(row: Row, size: int | None, error: str | None) -> None:
    row.mebibytes = None if size is None else size / 2**20
    row.error = error


def _set_time(row: Row, contest: Contest, outcome: Outcome) -> None:
    low, high = outcome.quartiles
    row.milliseconds = 1000 * outcome.median
    row.low, row.high = 1000 * low, 1000 * high
    row.images_per_second = contest.images / outcome.median
    row.calls = [1000 * seconds for seconds in outcome.seconds]
    rate = contest.rates.get(row.contender)
    if contest.operations and rate:
        row.giga_operations, row.giga_rate = contest.operations / 1e9, rate / 1e9
        row.share_of_limit = contest.operations / outcome.median / rate


def _compare_all(
    rows: Mapping[str, Row], outcomes: Mapping[str, Outcome], exact: set[str]
) -> list[str]:
    """Fill in the figures relative to the first contender that ran."""
    ran = [who for who, outcome in outcomes.items() if outcome.error is None]
    differing = []
    for who in ran:
        rows[who].relative_time = rows[who].milliseconds / rows[ran[0]].milliseconds
        reference, result = outcomes[ran[0]].result, outcomes[who].result
        if who == ran[0] or reference is None:
            continue
        agreement = compare(result, reference)
        rows[who].results = agreement.text
        if not agreement.same and who in exact:
            rows[who].results = f'DIFFERENT: {agreement.text}'
            differing.append(who)
    return differing


def refuse_differing(differing: list[str]) -> None:
    """Raise a UserError if results differ, once all is printed and written."""
    if differing:
        raise UserError(
            'results differ from those of the first contender: '
            f'{"; ".join(differing)}. '
            'These figures compare different things'
        )
