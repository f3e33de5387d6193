"""The training: loss with held-out points, learning rate, gradient norm, tokens/s, MFU."""

import math
from collections.abc import Callable, Iterator, Sequence

from pipeline.report.page.charts import Line, line_chart
from pipeline.report.page.content import DataTable, Figure, Section
from pipeline.report.page.run_documents import RunDocuments
from tokenmill.contracts.training import Telemetry
from tokenmill.number_format import approximate, count, decimal, duration

_CURVES: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
    ("learning_rate", "Learning rate", approximate, True),
    ("gradient_norm", "Gradient norm", approximate, True),
    ("tokens_per_second", "Tokens a second", lambda y: f"{y:,.0f}", True),
    ("mfu", "Model FLOPs utilization (MFU)", lambda y: f"{y:.0%}", True),
)

# A long training logs more than a curve shows and a file under 3 MB holds.
_MOST_POINTS = 500


def training_section(run: RunDocuments) -> Section:
    """Draw the curves of the training."""
    figures = [] if run.telemetry is None else [_loss(run.telemetry)]
    return Section(
        "training",
        "Training",
        sentences=[] if run.telemetry is None else list(_events(run.telemetry)),
        figures=[*figures, *_scalars(run)],
    )


def compare_losses(trained: Sequence[tuple[str, Telemetry]]) -> Iterator[Figure]:
    """Draw the losses of several trainings in one plot; nothing where there are no two.

    Args:
        trained: Name and telemetry of each.
    """
    if len(trained) < 2:
        return
    said = "; ".join(
        f"{name} from {telemetry.eval_before.loss:.3f} to {telemetry.eval_after.loss:.3f}"
        for name, telemetry in trained
    )
    for text, points in (("training", _training_points), ("held-out", _held_out_points)):
        svg, legend = line_chart(
            [Line(name, points(telemetry)) for name, telemetry in trained],
            "step",
            approximate,
        )
        rows = [(name, count(telemetry.steps), f"{telemetry.eval_before.loss:.4f}",
                 f"{telemetry.eval_after.loss:.4f}") for name, telemetry in trained]  # fmt: skip
        yield Figure(
            f"Loss on {text} text, nats a loss token",
            svg,
            f"A curve a training; the held-out loss goes {said}.",
            DataTable(("run", "steps", "held-out loss before", "held-out loss after"), rows),
            legend,
        )


def _training_points(telemetry: Telemetry) -> list[tuple[float, float]]:
    return [(float(step), loss) for step, loss in telemetry.loss_curve]


def _held_out_points(telemetry: Telemetry) -> list[tuple[float, float]]:
    return [
        (0.0, telemetry.eval_before.loss),
        *((float(step), loss) for step, loss in telemetry.eval_losses),
        (float(telemetry.steps), telemetry.eval_after.loss),
    ]


def _loss(telemetry: Telemetry) -> Figure:
    held_out, trained = _held_out_points(telemetry), _training_points(telemetry)
    svg, legend = line_chart(
        [Line("training text", trained), Line("held-out text", held_out, dots=True)],
        "step",
        approximate,
    )
    points = sorted(
        [(step, "training", loss) for step, loss in trained]
        + [(step, "held-out", loss) for step, loss in held_out]
    )
    return Figure(
        "Loss, nats a loss token",
        svg,
        f"A curve over {count(telemetry.steps)} steps: the held-out loss goes from "
        f"{telemetry.eval_before.loss:.3f} to {telemetry.eval_after.loss:.3f}.",
        DataTable(
            ("step", "text", "loss"),
            [(count(step), text, f"{loss:.4f}") for step, text, loss in points],
        ),
        legend,
    )


def _scalars(run: RunDocuments) -> Iterator[Figure]:
    """Draw each scalar of metrics.jsonl that has two finite values, of a long training some."""
    for key, title, show, from_zero in _CURVES:
        points = [(float(line["step"]), float(line[key])) for line in run.metrics
                  if "event" not in line and line.get(key) is not None]  # fmt: skip
        finite = _thin([point for point in points if math.isfinite(point[1])])
        if len(finite) < 2:
            continue
        svg, _ = line_chart([Line(title, finite)], "step", show, from_zero)
        (first, begin), (last, end) = finite[0], finite[-1]
        yield Figure(
            title,
            svg,
            f"A curve: {show(begin)} at step {count(first)}, {show(end)} at step {count(last)}.",
            DataTable(("step", title), [(count(x), show(y)) for x, y in _thin(points)]),
        )


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most so many points as a page has room for, evenly spaced, and the last."""
    every = math.ceil(len(points) / _MOST_POINTS)
    return [*points[:: max(1, every)], *([points[-1]] if every > 1 else [])]


def _events(telemetry: Telemetry) -> Iterator[str]:
    """Say what interrupted the training, a sentence each, and what it cost."""
    if telemetry.tokens_per_second is not None:
        yield f"{count(telemetry.tokens_per_second)} tokens a second on {telemetry.replicas} " + (
            "replica." if telemetry.replicas == 1 else "replicas."
        )
    for resume in telemetry.resumes:
        yield (
            f"Resumed from step {count(resume.from_step)}: {count(resume.lost_steps)} steps, "
            f"{duration(resume.lost_seconds)}, were done again."
        )
    for rewind in telemetry.rewinds:
        yield (
            f"The loss spiked to {decimal(rewind.loss)} at step {count(rewind.spike_step)}: back "
            f"to step {count(rewind.to_step)}, and {count(rewind.skipped_steps)} steps' "
            "rows left out."
        )
    if telemetry.overflows:
        yield f"{count(telemetry.overflows)} steps overflowed and were left out by the loss scale."
