"""One training run from packed rows to a SavedModel; what the Trainer component calls."""

import logging
import math
import os
import platform
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from components.train import fingerprint
from components.train.config import TrainingJob
from components.train.distributed.peers import describe_loss, missed_peers
from components.train.distributed.rendezvous import wait_for_workers
from components.train.distributed.spread_experts import SpreadExperts, SpreadVariable
from components.train.distributed.strategy import Workers, make_strategy
from components.train.execution import Execution, read_execution
from components.train.loop import Trainer
from components.train.pruning import PruningSchedule, describe_pruning
from components.train.session import MODEL_PREFIX, Session
from components.train.state import LossSums, TrainingRecord
from components.train.telemetry.attention_maps import attention_drawer, text_attention
from components.train.telemetry.samples import Sampler, make_sampler
from tokenmill import progress
from tokenmill.checkpoints.base_model import load_start_weights, read_pooling
from tokenmill.contracts.chat import find_chat_format
from tokenmill.contracts.packed_rows import PackedManifest
from tokenmill.contracts.samples import SamplePoint, Samples, write_samples
from tokenmill.contracts.training import Losses, Machine, Phase, Telemetry, write_telemetry
from tokenmill.contracts.training_limits import TrainingLimits, read_limits
from tokenmill.cost.device_benchmark import measure_matmul_flops_per_second
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError
from tokenmill.export.adapter_files import ADAPTER_DIRECTORY, write_adapter
from tokenmill.export.saved_model import export_model
from tokenmill.export.text_masking import masking_of
from tokenmill.files import absolute_path
from tokenmill.machine import memory_bytes, peak_process_bytes, vcpus
from tokenmill.model.backbone import Backbone
from tokenmill.model.build import build_model, merge_adapters
from tokenmill.model.lora import trains_head
from tokenmill.preemption import StoppedError, stop_on_signals
from tokenmill.rows.mixture import Mixture, plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.stack import library_versions, stack_versions
from tokenmill.text.tokenizers.load import read_tokenizer

# What TensorFlow's collectives raise when one who takes part has gone.
_LOST_WORKER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


@dataclass
class Training:
    """A finished training, before its export.

    Attributes:
        model: With the trained weights.
        record: What was counted and measured.
        session: Its checkpoints and phases.
        eval_rows: The held-out rows.
        new_variables: Paths of the variables that the base model lacks, and which began at random;
            none without a base model.
        collective_bytes_per_step: What a replica handed to collectives, by kind.
    """

    model: Backbone
    record: TrainingRecord
    session: Session
    eval_rows: PackedSplit
    new_variables: list[str]
    collective_bytes_per_step: dict[str, int]


def train(
    job: TrainingJob,
    rows_uri: str,
    training_directory: str | None = None,
    execution: Execution | None = None,
    tokenizer_path: str | None = None,
    start_seconds: float = 0.0,
    limits: TrainingLimits | None = None,
) -> Training:
    """Train, continuing where an earlier attempt at the same job got to.

    Args:
        job: What to train.
        rows_uri: A PackedRows artifact.
        training_directory: Where checkpoints and telemetry go; None keeps nothing.
        execution: How to carry it out.
        tokenizer_path: For the words beside the attention maps; without it there are none. A
            base model needs it.
        start_seconds: What this process took to start, booked as `start`.
        limits: Price and budget; None for none.

    Raises:
        StoppedError: A signal came, or a worker was lost; the state is saved.
        TokenmillError: The loss is not finite, a checkpoint does not fit, the budget is spent.
    """
    config = job.train
    strategy = make_strategy(config.strategy)  # first: multi_worker must come before any operation
    workers = Workers(strategy)
    if config.zero and workers.replicas == 1:
        progress.say(
            f"train.zero = {config.zero} splits AdamW's moments over replicas, and "
            f'train.strategy = "{config.strategy}" has one here, which holds all of them.'
        )
    rows, eval_rows = PackedSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    available = Mixture.of(rows.manifest).rows_available
    plan = plan_steps(
        rows.rows, config.global_batch_size, config.epochs, config.max_steps, available
    )
    settings = fingerprint.settings_of(job) | {
        "rows": fingerprint.rows_fingerprint(rows),
        "stack": stack_versions(),
        **fingerprint.mixture_of(rows),
    }
    with stop_on_signals() as stop:
        session = Session(
            workers,
            settings,
            execution or Execution(),
            training_directory,
            rows.manifest.loss_tokens * rows.manifest.mask_rate,
            config.resume_from,
            stop,
            target_share(rows.manifest),
            limits and _with_peak(limits, workers),
            flops_per_token(job.shape, lora=config.lora).training,
        )
        session.phase_timer.seconds[Phase.START] = start_seconds
        try:
            with session.phase_timer.phase(Phase.BUILD):
                spread = None
                if config.expert_parallel and workers.replicas > 1:
                    spread = SpreadExperts(strategy, job.shape.experts, config.jit_compile)
                with strategy.scope():
                    model = build_model(
                        job.shape,
                        job.seed,
                        config.precision,
                        config.dropout,
                        config.rematerialize,
                        config.lora,
                        spread,
                    )
                    kept: list[str] = []
                    if job.base_model is not None:
                        assert tokenizer_path is not None, "a base model needs the tokenizer"
                        kept = load_start_weights(model, job.base_model, tokenizer_path)
                        check_frozen(job, kept)
                trainer = Trainer(strategy, model, config, plan, job.seed)
                drawer = None
                # The chief alone can run only a model that is whole.
                alone = tokenizer_path if workers.is_chief and spread is None else None
                if alone:
                    drawer = attention_drawer(model, eval_rows, alone)
            sampler = None
            if alone:
                sampler = _sampler(model, eval_rows, alone, session)
            with missed_peers(workers.count):
                record = trainer.fit(rows, eval_rows, session, drawer, sampler)
                if spread is not None:
                    model = _whole_model(job, trainer, workers)
            if spread is not None:
                if tokenizer_path and workers.is_chief:
                    sampler = _sampler(model, eval_rows, tokenizer_path, session)
                if sampler is not None:
                    point = SamplePoint(step=record.step, samples=sampler())
                    record.samples.append(point)
        except _LOST_WORKER as error:
            if workers.count == 1:
                raise
            logging.warning("a worker was lost", exc_info=True)
            raise StoppedError(
                describe_loss(error),
                "Start all workers again; they continue from the last checkpoint.",
            ) from error
        finally:
            session.close()
    return Training(model, record, session, eval_rows, kept, trainer.collectives.bytes_per_step)


def _whole_model(job: TrainingJob, trainer: Trainer, workers: Workers) -> Backbone:
    """Return a model with all experts on the chief, the model as it is on the others.

    All workers have to call it. The chief's is in host memory.
    """
    whole, targets = None, {}
    if workers.is_chief:
        with tf.device("CPU:0"):
            whole = build_model(job.shape, job.seed, job.train.precision)
            for variable, own in zip(whole.variables, trainer.model.variables, strict=True):
                targets[MODEL_PREFIX + variable.path] = variable
                if not trainer.model.builder.spread.holds(own):
                    variable.assign(own.numpy())
    # One after the other: no worker holds more than one of them beside its own, or the whole model.
    for name, variable in trainer.variables().items():
        if name.startswith(MODEL_PREFIX) and isinstance(variable, SpreadVariable):
            value = variable.numpy()
            if name in targets:
                targets[name].assign(value)
    return trainer.model if whole is None else whole


def _sampler(
    model: Backbone, eval_rows: PackedSplit, tokenizer_path: str, session: Session
) -> Sampler | None:
    if not session.execution.samples:
        return None
    with session.phase_timer.phase(Phase.SAMPLES):
        chat_format = find_chat_format(os.path.dirname(tokenizer_path))
        return make_sampler(
            model,
            eval_rows,
            read_tokenizer(tokenizer_path),
            session.execution.samples,
            None if chat_format is None else chat_format.stop_ids,
        )


def check_frozen(job: TrainingJob, kept: list[str]) -> None:
    """Check that no weight is both frozen and random.

    Args:
        job: What to train.
        kept: Weights that the base model does not have.

    Raises:
        TokenmillError: There is one.
    """
    if job.train.lora is not None and kept and not trains_head(job.shape):
        raise TokenmillError(
            f"model.base_model = {job.base_model}: it has no {kept[0]}, and with train.lora_rank = "
            f"{job.train.lora_rank} that would stay random.",
            "Give a base model that was trained for this task, or --set train.lora_rank=0",
        )


def target_share(manifest: PackedManifest) -> float:
    """Return the targets of one pass over the rows, by its loss tokens.

    In classification one for each row, all of whose tokens are loss tokens; else 1.
    """
    return manifest.rows / manifest.loss_tokens if manifest.task == "classification" else 1.0


def _with_peak(limits: TrainingLimits, workers: Workers) -> TrainingLimits:
    """Return the limits with the measured peak of this machine's cores, if none is known."""
    if limits.peak_flops_per_second is not None or tf.config.list_logical_devices("GPU"):
        return limits
    peak = measure_matmul_flops_per_second() * workers.count
    return limits.model_copy(update={"peak_flops_per_second": peak})


def train_and_export(
    job: TrainingJob,
    rows_uri: str,
    transform_graph_uri: str,
    tokenizer_path: str,
    model_directory: str,
    run_directory: str,
    training_directory: str | None = None,
    limits_path: str | None = None,
    start_seconds: float = 0.0,
) -> Telemetry:
    """Train, write the SavedModel and telemetry.json; return the telemetry.

    The chief of several workers calls this, within `call_workers`; the others run
    components/train/distributed/worker.py.

    Args:
        job: What to train.
        rows_uri: A PackedRows artifact.
        transform_graph_uri: A TransformGraph artifact.
        tokenizer_path: The SentencePiece model.
        model_directory: Where the SavedModel goes.
        run_directory: Where telemetry.json, metrics.jsonl and TensorBoard's files go.
        training_directory: Where checkpoints go, and where execution.json is read from.
        limits_path: Where limits.json is read from.
        start_seconds: As for `train`.
    """
    execution = None if training_directory is None else read_execution(training_directory)
    limits = None if limits_path is None else read_limits(limits_path)
    if job.train.strategy == "multi_worker" and training_directory is not None:
        wait_for_workers(training_directory)
    training = train(
        job, rows_uri, training_directory, execution, tokenizer_path, start_seconds, limits
    )
    session = training.session
    with session.phase_timer.phase(Phase.EXPORT):
        pooling = None if job.base_model is None else read_pooling(job.base_model)
        export_model(
            merge_adapters(training.model),
            transform_graph_uri,
            tokenizer_path,
            model_directory,
            job.quantization,
            masking_of(training.eval_rows),
            training.eval_rows.manifest.label_names,
            pooling,
        )
        if job.train.lora is not None:
            adapter = os.path.join(model_directory, "assets.extra", ADAPTER_DIRECTORY)
            base_model = job.base_model and absolute_path(job.base_model)
            write_adapter(training.model, adapter, base_model)
    if session.execution.samples:
        with session.phase_timer.phase(Phase.SAMPLES):
            attention = text_attention(
                training.model, training.eval_rows, read_tokenizer(tokenizer_path)
            )
            write_samples(
                run_directory, Samples(points=training.record.samples, attention=attention)
            )
    session.publish(run_directory)
    session.phase_timer.book()
    telemetry = describe(training, job, model_directory)
    write_telemetry(run_directory, telemetry)
    return telemetry


def describe(training: Training, job: TrainingJob, model_directory: str | None = None) -> Telemetry:
    """Return the run's totals over all attempts.

    Args:
        training: A finished training.
        job: What was trained.
        model_directory: Its SavedModel, whose size tells what pruning saves; None if not exported.
    """
    record, eval_rows = training.record, training.eval_rows
    assert record.eval_before is not None
    assert record.eval_after is not None
    # Hidden tokens are no code of the text: only next-token losses have bits per byte.
    eval_bytes = eval_rows.manifest.loss_bytes if eval_rows.task == "causal-lm" else None
    rate = record.tokens_per_second
    of_some: dict[str, Any] = {}
    if eval_rows.task == "classification":
        per_slot = record.trained_loss_tokens / record.trained_slots
        of_some["examples_per_second"] = None if rate is None else rate * per_slot
    if training.new_variables:
        of_some["new_variables"] = training.new_variables
    if (pruning := PruningSchedule.of(job.train.prune_sparsity, record.plan.steps)) is not None:
        before = record.eval_before_pruning
        of_some["pruning"] = describe_pruning(
            job.train,
            pruning,
            training.model.trainable_variables,
            None if before is None else _losses(before, eval_bytes),
            model_directory,
        )
    return Telemetry(
        base_model=job.base_model,
        params_total=_size(training.model.base_variables),
        params_trained=_size(training.model.trainable_variables),
        steps=record.plan.steps,
        epochs=record.plan.epochs,
        global_batch_size=job.train.global_batch_size,
        replicas=training.session.workers.replicas,
        collective_bytes_per_step=training.collective_bytes_per_step,
        trained_slots=record.trained_slots,
        trained_loss_tokens=record.trained_loss_tokens,
        seconds=record.seconds,
        cpu_seconds=record.cpu_seconds,
        peak_process_bytes=peak_process_bytes(),
        total_seconds=sum(record.seconds.values()),
        tokens_per_second=rate,
        **of_some,
        loss_curve=record.loss_curve,
        eval_before=_losses(record.eval_before, eval_bytes),
        eval_after=_losses(record.eval_after, eval_bytes),
        eval_losses=record.evaluations,
        resumes=record.resumes,
        rewinds=record.rewinds,
        overflows=record.overflows,
        training_directory=training.session.directory,
        versions=library_versions(),
        machine=_machine(),
    )


def _machine() -> Machine:
    """Describe the machine; an accelerator without a name in its details has that of its kind."""
    config = tf.config
    devices = [d for d in config.list_physical_devices() if d.device_type in ("GPU", "TPU")]
    names = [config.experimental.get_device_details(d).get("device_name", d.device_type)
             for d in devices]  # fmt: skip
    return Machine(processor=platform.machine(), vcpus=vcpus(), memory_bytes=memory_bytes(),
                   accelerators=names)  # fmt: skip


def _size(variables: list[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _losses(sums: LossSums, text_bytes: int | None) -> Losses:
    """Divide the sums by loss tokens and, if the bytes of the text are given, by bytes.

    Of a classifier, whose target is a class, accuracy instead of perplexity.
    """
    loss = sums.nll / sums.loss_tokens
    measures = {}
    if sums.accuracy is not None:
        measures["accuracy"] = sums.accuracy
    else:
        measures["perplexity"] = math.exp(min(loss, 700.0))
        if text_bytes is not None:
            measures["bits_per_byte"] = sums.nll / math.log(2) / text_bytes
    return Losses(nll_sum=sums.nll, loss_tokens=sums.loss_tokens, loss=loss, **measures)
