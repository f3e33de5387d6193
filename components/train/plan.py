"""How many steps a run takes and which rows each step reads; nothing here imports TensorFlow.

The ledger plans with the same functions as the trainer runs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepPlan:
    """A run's steps.

    Attributes:
        rows: Rows of the training split.
        global_batch_size: Rows a step.
        steps: Steps in all.
    """

    rows: int
    global_batch_size: int
    steps: int

    @property
    def rows_read(self) -> int:
        """Rows that training reads, repetitions counted."""
        return self.steps * self.global_batch_size

    @property
    def epochs(self) -> float:
        """How often the training split is read."""
        return self.rows_read / self.rows


def plan_steps(
    rows: int, global_batch_size: int, epochs: float, max_steps: int | None = None
) -> StepPlan:
    """Steps for so many epochs; batches run on from one epoch into the next, so all are full.

    Raises:
        ValueError: There are no rows.
    """
    if rows < 1:
        raise ValueError(f"rows = {rows}: expected at least one packed row to train on")
    steps = max(1, round(epochs * rows / global_batch_size))
    return StepPlan(rows, global_batch_size, min(steps, max_steps or steps))
