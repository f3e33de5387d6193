"""The tokenizer beside a SavedModel, for servers without the tf.text op.

Such a server can call the signatures that take token ids; a client makes the ids with the
sentencepiece library from `assets.extra/tokenizer.model`. For a unigram model the library may
choose another split of the same score than the op did in training (docs/tokens.md).
"""

import hashlib
import os

import tensorflow as tf

from tokenmill.contracts.base import read_document, write_document
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME, TOKENIZER_MODEL_NAME, TokenizerAsset
from tokenmill.errors import TokenmillError
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS
from tokenmill.text.tokenizers.load import read_tokenizer
from tokenmill.text.vocabulary import CONTROL_TOKENS


def write_tokenizer_assets(tokenizer_path: str, saved_model: str) -> None:
    """Write the model file, its SHA-256 and the control tokens' ids into `assets.extra`.

    Args:
        tokenizer_path: The SentencePiece model.
        saved_model: Directory of the SavedModel, which is there already.
    """
    extra = os.path.join(saved_model, "assets.extra")
    tf.io.gfile.makedirs(extra)
    target = os.path.join(extra, TOKENIZER_MODEL_NAME)
    tf.io.gfile.copy(tokenizer_path, target, overwrite=True)
    with tf.io.gfile.GFile(target, "rb") as source:
        digest = hashlib.sha256(source.read()).hexdigest()
    tokenizer = read_tokenizer(target)
    ids = tokenizer.control_ids.by_name()
    if tokenizer.control_ids == TOKENMILL_CONTROL_IDS:
        ids = {token: i for i, token in enumerate(CONTROL_TOKENS)}
    asset = TokenizerAsset(sha256=digest, control_ids=ids)
    write_document(os.path.join(extra, DESCRIPTION_NAME), asset)


def read_tokenizer_asset(saved_model: str) -> bytes:
    """Read the SentencePiece model beside a SavedModel.

    Raises:
        TokenmillError: The file is another one than its SHA-256 says.
    """
    extra = os.path.join(saved_model, "assets.extra")
    path = os.path.join(extra, TOKENIZER_MODEL_NAME)
    with tf.io.gfile.GFile(path, "rb") as source:
        model = source.read()
    description = read_document(os.path.join(extra, DESCRIPTION_NAME), TokenizerAsset)
    if hashlib.sha256(model).hexdigest() != description.sha256:
        raise TokenmillError(f"{path} is not the file that was pushed.", "Push the model again.")
    return model
