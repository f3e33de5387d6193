"""What a training has done so far: the part of a checkpoint that is not a weight."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from tokenmill.contracts.samples import SamplePoint
from tokenmill.contracts.training import STEADY_PHASES, Phase, Resume, Rewind
from tokenmill.rows.mixture import StepPlan


class LossSums(NamedTuple):
    """Sums over targets, never averages of averages.

    Attributes:
        nll: Negative log-likelihood in nats.
        loss_tokens: Targets counted.
        correct: Those that the likeliest class hits; of a classifier.
    """

    nll: float
    loss_tokens: float
    correct: float | None = None

    @property
    def loss(self) -> float:
        """Nats a target."""
        return self.nll / max(self.loss_tokens, 1.0)

    @property
    def accuracy(self) -> float | None:
        """Share of hits, 0 to 1; None where they are not counted."""
        return None if self.correct is None else self.correct / max(self.loss_tokens, 1.0)


@dataclass
class TrainingRecord:
    """Steps, tokens, losses and where the seconds went, over all attempts.

    Attributes:
        plan: Steps of the whole run.
        step: Steps done; the next step reads the rows of `step + data_offset`.
        data_offset: Steps' worth of rows that rewinds have skipped.
        trained_loss_tokens: Loss tokens that the weights have learnt from; of a classifier,
            examples.
        trained_slots: Tokens computed for them, padding included.
        steady_slots: Those of them outside of steps that compiled.
        loss_curve: (step, mean loss in nats), some 200 points.
        recent_losses: The last steps' losses, for the detection of spikes.
        eval_before: Eval loss before the first step.
        eval_after: Eval loss after the last step.
        eval_before_pruning: Eval loss of the last dense weights, where any are pruned.
        evaluations: (step, eval loss) in between.
        seconds: Wall seconds by phase.
        cpu_seconds: CPU seconds of the process by phase, the chief's.
        rewinds: Loss spikes, and where training went back to.
        resumes: Attempts after the first.
        overflows: Steps that the loss scale left out.
        samples: What the model made of held-out texts at the times that have passed.
    """

    plan: StepPlan
    step: int = 0
    data_offset: int = 0
    trained_loss_tokens: int = 0
    trained_slots: int = 0
    steady_slots: int = 0
    loss_curve: list[tuple[int, float]] = field(default_factory=list)
    recent_losses: list[float] = field(default_factory=list)
    eval_before: LossSums | None = None
    eval_after: LossSums | None = None
    eval_before_pruning: LossSums | None = None
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    seconds: dict[Phase, float] = field(default_factory=dict)
    cpu_seconds: dict[Phase, float] = field(default_factory=dict)
    rewinds: list[Rewind] = field(default_factory=list)
    resumes: list[Resume] = field(default_factory=list)
    overflows: int = 0
    samples: list[SamplePoint] = field(default_factory=list)

    @property
    def steady_seconds(self) -> float:
        """Wall seconds of the steps that did not compile, waiting for input included."""
        return sum(self.seconds.get(phase, 0.0) for phase in STEADY_PHASES)

    @property
    def steady_cpu_seconds(self) -> float:
        """CPU seconds of the same steps."""
        return sum(self.cpu_seconds.get(phase, 0.0) for phase in STEADY_PHASES)

    @property
    def tokens_per_second(self) -> float | None:
        """Slots a second of steps that did not compile; None before the first one."""
        return self.steady_slots / self.steady_seconds if self.steady_slots else None

    def to_json(self) -> dict[str, Any]:
        """Return all but the plan, for a checkpoint."""
        values = asdict(self)
        del values["plan"]
        for name in ("rewinds", "resumes", "samples"):
            values[name] = [part.to_json() for part in values[name]]
        return values

    @classmethod
    def from_json(cls, plan: StepPlan, values: dict[str, Any]) -> "TrainingRecord":
        """Return the record that `to_json` was called on."""
        values = dict(values)
        for name in ("eval_before", "eval_after", "eval_before_pruning"):
            values[name] = None if values.get(name) is None else LossSums(*values[name])
        for name in ("loss_curve", "evaluations"):
            values[name] = [(int(step), loss) for step, loss in values[name]]
        values["rewinds"] = [Rewind(**rewind) for rewind in values["rewinds"]]
        values["resumes"] = [Resume(**resume) for resume in values["resumes"]]
        values["samples"] = [SamplePoint(**point) for point in values.get("samples", [])]
        for name in ("seconds", "cpu_seconds"):
            values[name] = {Phase(key): value for key, value in values.get(name, {}).items()}
        return cls(plan, **values)
