"""Evaluator: TFX's own, with its time written on its outputs."""

from tfx.components import Evaluator
from tfx.components.evaluator import executor as evaluator_executor
from tfx.dsl.components.base import executor_spec

from tokenmill.timing import timed


class TimedEvaluatorExecutor(evaluator_executor.Executor):
    """TFX's executor; the bill needs to know what evaluation took."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Evaluate with TFMA."""
        super().Do(input_dict, output_dict, exec_properties)


class TimedEvaluator(Evaluator):
    """TFX's Evaluator; arguments and outputs are the same."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(TimedEvaluatorExecutor)
