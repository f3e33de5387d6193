"""Two small models, exported once by the code that exports the real ones."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np
import pytest

from tokenmill.model.shape import ModelShape

CONTEXT_LENGTH = 48
TEXTS = [
    "Returns the sum of the elements of a tensor over an axis.",
    "A layer that adds its inputs and returns the result, a tensor of the same shape.",
    "Raises ValueError if the shape is unknown, and TypeError if the type is not supported.",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
] * 20


@dataclasses.dataclass
class Exported:
    """A served base directory with versions 1 and 2, and the decoders inside them."""

    base: pathlib.Path
    decoders: dict[int, Any]
    transform_graph: str
    tokenizer: str

    def export(self, directory: pathlib.Path, **options) -> None:
        """Writes the decoder of version 1 once more."""
        from tokenmill.export.saved_model import export_model

        export_model(
            self.decoders[1], self.transform_graph, self.tokenizer, str(directory), **options
        )

    @functools.cached_property
    def loaded(self):
        """The SavedModel of version 1."""
        import tensorflow as tf
        import tensorflow_text  # noqa: F401

        return tf.saved_model.load(str(self.base / "1"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    return export_models(tmp_path_factory.mktemp("exported"), CONTEXT_LENGTH)


def export_models(root: pathlib.Path, context_length: int) -> Exported:
    """Exports two small models of one shape, with random weights."""
    from components.tokenize.config import TokenizerConfig
    from components.tokenize.training import train_sentencepiece
    from tokenmill.export.saved_model import export_model
    from tokenmill.model.decoder import Decoder

    tokenizer = root / "tokenizer.model"
    settings = TokenizerConfig(model_type="bpe", vocab_size=340, sample_bytes=10**6)
    tokenizer.write_bytes(train_sentencepiece(TEXTS, settings))
    graph = str(root / "transform_graph")
    _write_transform_graph(graph, str(tokenizer), str(root / "temporary"))
    shape = ModelShape(
        layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64, vocab_size=340,
        sequence_length=context_length, positions="rope", norm="layer", use_bias=True, mlp="gelu",
        tie_embeddings=True,
    )  # fmt: skip
    base, decoders = root / "tiny", {}
    for version in (1, 2):
        decoder = decoders[version] = Decoder(shape, version)
        rng = np.random.default_rng(version)
        for weight in decoder.trainable_variables:  # so that outputs differ from text to text
            noise = rng.normal(0.0, 0.3, weight.shape)
            weight.assign(noise + (1.0 if weight.name == "gamma" else 0.0))
        export_model(decoder, graph, str(tokenizer), str(base / str(version)))
    return Exported(base, decoders, graph, str(tokenizer))


def _write_transform_graph(directory: str, tokenizer: str, temporary: str) -> None:
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from components.tokenize.preprocessing import TOKENIZER_PATH_KEY, preprocessing_fn
    from tokenmill.beam_arguments import RUNNER

    strings = {name: tf.io.FixedLenFeature([1], tf.string) for name in ("text", "source", "doc_id")}
    spec = {**strings, "byte_count": tf.io.FixedLenFeature([1], tf.int64)}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    row = {name: np.array([b"x"], object) for name in strings} | {"byte_count": np.array([1])}
    function = functools.partial(preprocessing_fn, custom_config={TOKENIZER_PATH_KEY: tokenizer})
    with tft_beam.Context(temp_dir=temporary), beam.Pipeline(runner=RUNNER) as pipeline:
        rows = pipeline | beam.Create([row])
        analysed = (rows, metadata) | tft_beam.AnalyzeDataset(function)
        analysed | tft_beam.WriteTransformFn(directory)


@pytest.fixture(scope="session")
def chat_base(exported, tmp_path_factory) -> pathlib.Path:
    """A base directory with version 1 of a model of conversations, whose context is long."""
    import shutil

    from components.tokenize.chat_format import resolve_chat_format
    from components.tokenize.config import TokenizerConfig
    from tokenmill.contracts.chat import write_chat_format
    from tokenmill.export.saved_model import export_model
    from tokenmill.model.decoder import Decoder

    root = tmp_path_factory.mktemp("chat")
    tokenizer = shutil.copy(exported.tokenizer, root)
    write_chat_format(str(root), resolve_chat_format(TokenizerConfig()))
    shape = dataclasses.replace(exported.decoders[1].shape_config, sequence_length=1024)
    decoder = Decoder(shape, 1)
    for mine, other in zip(
        decoder.trainable_variables, exported.decoders[1].trainable_variables, strict=True
    ):
        mine.assign(other)
    export_model(decoder, exported.transform_graph, tokenizer, str(root / "model" / "1"))
    return root / "model"


@pytest.fixture(scope="session")
def load_once():
    """LoadedModel, but each directory once: loading one takes seconds."""
    from serving.server.model import LoadedModel

    load = functools.cache(LoadedModel)
    return lambda directory, version: load(os.path.realpath(directory), version)


@pytest.fixture
def loaded_once(load_once, monkeypatch):
    """Servers that a test starts share the models that the session has loaded."""
    monkeypatch.setattr("serving.server.versions.LoadedModel", load_once)


@pytest.fixture(scope="session")
def server(exported, load_once):
    """A server with the default options; it serves version 2."""
    from serving.app import ServerThread
    from serving.server.config import ServerConfig

    settings = ServerConfig(str(exported.base), rest_port=0, grpc_port=0, poll_seconds=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.server.versions.LoadedModel", load_once)
        with ServerThread(settings) as thread:
            yield thread


@pytest.fixture
def versions(exported, tmp_path):
    """An empty base directory, and a function that pushes version 1 or 2 under a number."""
    base = tmp_path / "model"
    base.mkdir()

    def push(source: int, number: int) -> None:
        aside = base / ".pushing"
        aside.symlink_to(exported.base / str(source))
        os.rename(aside, base / str(number))

    push.base = base
    return push


@pytest.fixture(scope="session")
def flags(exported):
    from tokenmill.rows.token_flags import token_flags
    from tokenmill.text.tokenizers.load import read_tokenizer

    return token_flags(read_tokenizer(str(exported.tokenizer)).token_bytes)


@pytest.fixture(scope="session")
def make_encoder(exported, flags, tmp_path_factory):
    """Exports an encoder with a head; returns it and the loaded SavedModel."""
    import tensorflow as tf

    from tokenmill.export.saved_model import export_model
    from tokenmill.export.text_masking import TextMasking
    from tokenmill.model.build import Encoder
    from tokenmill.rows.masking import MaskSettings

    def make(head, whole_word=False, pooling=None):
        shape = dataclasses.replace(
            exported.decoders[1].shape_config, causal=False, head=head,
            classes=3 if head == "classifier" else 0, norm_position="post",
        )  # fmt: skip
        encoder = Encoder(shape, 5)
        for weight in encoder.trainable_variables:
            if "kernel" in weight.path:
                weight.assign(np.random.default_rng(1).normal(0.0, 0.2, weight.shape))
        masking = TextMasking(MaskSettings(0.3, whole_word), flags) if head == "mlm" else None
        directory = str(tmp_path_factory.mktemp(head))
        export_model(
            encoder,
            exported.transform_graph,
            exported.tokenizer,
            directory,
            masking=masking,
            label_names=["böse", "fair", "gut"] if head == "classifier" else None,
            pooling=pooling,
        )
        loaded = tf.saved_model.load(directory)
        loaded.directory = directory
        return encoder, loaded

    return make
