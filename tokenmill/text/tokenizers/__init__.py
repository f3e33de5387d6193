"""Tokenizers of several kinds, as TensorFlow graphs with one interface.

`load_tokenizer` (load.py) reads any of them from the one file that a pipeline carries.
"""
