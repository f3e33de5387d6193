"""Import of tokenizers that others made: the files of a Hugging Face directory, compiled once.

`import_tokenizer` (directory.py) is the way in. The `tokenizers` library reads tokenizer.json and
says what text becomes; nothing of it is needed afterwards.
"""
