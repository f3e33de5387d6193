"""What can be known before the first step: weights to start from, batch, accelerator, disk."""

import glob
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence

from components.evaluate.benchmarks import install_harness
from components.ingest.manifest import InputFile, list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document, default_source
from components.ingest.transforms import split_of
from pipeline.config import Config
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.checkpoints.directory import is_checkpoint
from tokenmill.checkpoints.writing import why_no_form
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.files import open_file
from tokenmill.model.lora import trained_params_by_part
from tokenmill.model.same_shape import check_same_shape
from tokenmill.number_format import byte_size
from tokenmill.visible import visible

# Weights and AdamW's two moments.
_CHECKPOINT_BYTES_PER_PARAMETER = 12
# The SavedModel, and where it is pushed to.
_EXPORTED_BYTES_PER_PARAMETER = 8
# Ingested, curated, tokenized and packed, and what is staged in between.
_COPIES_OF_TEXT = 5
# Documents whose sources are looked at.
_SOURCED_DOCUMENTS = 1_000
# Documents whose labels are looked at, and how often one has to be there: curation may well drop
# all documents of a label that few have.
_LABELED_DOCUMENTS = 20_000
_OFTEN = 5
_SHOWN_LABELS = 10
_TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_ID", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS")


def check_before_start(config: Config) -> None:
    """Check what would else fail at the Packer or the Trainer.

    Raises:
        TokenmillError: A value does not fit another, the machine or the disk.
    """
    if config.model.base_model is not None:
        check_base_model(config, config.model.base_model)
    check_devices(config)
    corpus = config.corpus
    files = list_inputs(corpus.input, span=corpus.span) if corpus.input else []
    check_disk(config, files)
    if config.train.task == "classification" and files:
        check_classes(config, files)
    if config.evaluate.benchmarks:
        install_harness()  # now: without a network that would fail behind the training
    if config.engine.beam != "in_process":
        from pipeline.runners.beam_engine import check_beam_engine  # imports Beam, for a second

        check_beam_engine(config.engine, os.path.abspath(config.output_dir))


def experts_export_remark(config: Config) -> str:
    """Return a sentence if the mixture of experts has no form that Hugging Face knows.

    `tokenmill export hf` says so, too, but when the training is over; what stands in the way is
    often a key that decides little, such as model.balance.
    """
    shape = config.shape()
    why = why_no_form(shape) if shape.experts > 1 else ""
    if not why:
        return ""
    return (
        f"tokenmill export hf will not be able to write this mixture of experts: {why}. It is "
        "trained, pushed and served all the same."
    )


def source_field_remark(config: Config) -> str:
    """Return a sentence if a corpus.source_field was set that no document looked at has."""
    corpus, read = config.corpus, 0
    if corpus.source_field == type(corpus).model_fields["source_field"].default:
        return ""
    for file in list_inputs(corpus.input, span=corpus.span) if corpus.input else []:
        for item in read_file(file, corpus):
            if isinstance(item, Document):
                if item.source != default_source(file):
                    return ""
                read += 1
            if read == _SOURCED_DOCUMENTS:
                break
        if read == _SOURCED_DOCUMENTS:
            break
    if not read:
        return ""
    return (
        f"corpus.source_field = {visible(corpus.source_field)}: none of the first {read:,} "
        "documents has this field; the source of each is its file or directory."
    )


def check_base_model(config: Config, directory: str) -> None:
    """Check that the base model's shape and tokenizer are those of the run."""
    name = f"model.base_model = {directory}"
    if is_checkpoint(directory):
        _check_open_model(config, directory, name)
        return
    try:
        base = read_served_model(directory)
    except FileNotFoundError:
        raise TokenmillError(
            f"{name}: no model that tokenmill pushed (assets.extra/model.json is missing).",
            "Give the directory of one version, such as runs/demo/serving_model/<version>.",
        ) from None
    if base.quantization != "float32":
        raise TokenmillError(
            f"{name}: its weights are stored as {base.quantization}; they cannot be trained "
            "further.",
            "Push the base model with push.quantization = float32.",
        )
    shape, base_shape = config.shape(), base.model_shape
    ours, theirs = shape.backbone(), base_shape.backbone()
    if shape.positions == "learned":
        ours["sequence_length"] = shape.sequence_length
        theirs["sequence_length"] = base_shape.sequence_length
    check_same_shape(name, ours, theirs)
    path = config.tokenizer.path
    its_tokenizer = os.path.join(directory, TOKENIZER_PATH)
    if path is not None and _sha256(path) != _sha256(its_tokenizer):
        raise TokenmillError(
            f"{name}: its tokenizer is not tokenizer.path = {path}, so an id means another piece "
            "of text.",
            f"Take it from there: --set tokenizer.path={its_tokenizer}",
        )


def _check_open_model(config: Config, directory: str, name: str) -> None:
    """Check that shape, task and tokenizer of the run are those of a Hugging Face checkpoint."""
    checkpoint = read_checkpoint(directory, config.model.sequence_length)
    shape = config.shape()
    if shape.causal != checkpoint.shape.causal:
        kind = "a decoder" if checkpoint.shape.causal else "an encoder"
        tasks = "causal-lm" if checkpoint.shape.causal else "masked-lm or classification"
        raise TokenmillError(
            f"{name} is {kind}, which train.task = {config.train.task} does not train.",
            f"Choose train.task = {tasks}.",
        )
    checkpoint.check_shape(shape)
    path = config.tokenizer.path
    its_own = os.path.abspath(directory)
    if path is None or os.path.commonpath([os.path.abspath(path), its_own]) != its_own:
        raise TokenmillError(
            f"{name}: its tokenizer is not tokenizer.path = {path}, so an id means another piece "
            "of text.",
            f"Take it from there: --set tokenizer.path={directory}",
        )


def check_devices(config: Config) -> None:
    """Check that the strategy's devices are here and share the batch evenly."""
    train = config.train
    if train.strategy == "tpu" and not (
        any(name in os.environ for name in _TPU_VARIABLES) or glob.glob("/dev/accel*")
    ):
        raise TokenmillError(
            "train.strategy = tpu, but this machine has no TPU (no /dev/accel*, no TPU_NAME).",
            "Run it on a TPU machine or by `tokenmill compile`; here: --set train.strategy=default",
        )
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        gpus = len(glob.glob("/dev/nvidia[0-9]*"))
    else:
        gpus = len([name for name in chosen.split(",") if name.strip()])
    parts = train.accumulation_steps * (max(gpus, 1) if train.strategy == "mirrored" else 1)
    if train.global_batch_size % parts:
        nearest = max(1, round(train.global_batch_size / parts)) * parts
        raise TokenmillError(
            f"train.global_batch_size = {train.global_batch_size} cannot be divided by {parts} "
            f"(train.accumulation_steps = {train.accumulation_steps}, times the devices).",
            f"For example: --set train.global_batch_size={nearest}",
        )


def check_disk(config: Config, files: Sequence[InputFile]) -> None:
    """Check that the output directory has room for the steps' files and the checkpoints."""
    kept = config.execution.keep_checkpoints + 2  # the one being written, and the best
    shape = config.shape()
    trained = sum(trained_params_by_part(shape, config.train.lora).values())
    text = sum(file.size_bytes for file in files)
    checkpoints = trained * _CHECKPOINT_BYTES_PER_PARAMETER * kept
    exported = shape.params_total * _EXPORTED_BYTES_PER_PARAMETER
    needed = checkpoints + exported + _COPIES_OF_TEXT * text
    directory = os.path.abspath(config.output_dir)
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TokenmillError(
            f"{directory} has {byte_size(free)} free; the run needs some {byte_size(needed)}: "
            f"{kept} checkpoints of {trained:,} parameters and the texts of each step.",
            "Give another --output-dir, or fewer checkpoints: --set execution.keep_checkpoints=1",
        )


def check_classes(config: Config, files: Iterable[InputFile]) -> None:
    """Check model.classes against the labels of the input's first documents that are trained on."""
    labels: Counter[bytes] = Counter()
    read, whole = 0, True
    for file in files:
        for item in read_file(file, config.corpus):
            if isinstance(item, Document):
                read += 1
                if item.label and split_of(item.text, config.corpus.eval_fraction) == "train":
                    labels.update([item.label])
            if read == _LABELED_DOCUMENTS:
                break
        if read == _LABELED_DOCUMENTS:
            whole = False
            break
    field = f"corpus.label_field = {config.corpus.label_field}"
    if not labels:
        raise TokenmillError(
            f"{field}: none of {read:,} documents has a label.",
            "Set corpus.label_field to the field that holds the class.",
        )
    often = sum(number >= _OFTEN for number in labels.values())
    classes = config.model.classes
    if often > classes or (whole and len(labels) < classes):
        found = often if often > classes else len(labels)
        names = [visible(label.decode()) for label, _ in labels.most_common(_SHOWN_LABELS)]
        more = f" and {len(labels) - len(names):,} more" if len(labels) > len(names) else ""
        raise TokenmillError(
            f"model.classes = {classes}, but {read:,} documents have {len(labels):,} "
            f"label{'s' if len(labels) > 1 else ''}: {', '.join(names)}{more}.",
            f"--set model.classes={found}, or correct corpus.label_field."
            if found > 1
            else "A classifier needs two labels or more; look at corpus.label_field.",
        )


def _sha256(path: str) -> str:
    with open_file(path) as source:
        return hashlib.sha256(source.read()).hexdigest()
