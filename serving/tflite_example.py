"""Continue a text with a .tflite file: tflite_example.py DIRECTORY TEXT.

Needs numpy, sentencepiece and ai-edge-litert only.
"""

import sys

import numpy as np
import sentencepiece
from ai_edge_litert.interpreter import Interpreter

directory, text = sys.argv[1:3]
tokenizer = sentencepiece.SentencePieceProcessor(model_file=f"{directory}/tokenizer.model")
interpreter = Interpreter(f"{directory}/model-int8.tflite")
interpreter.allocate_tensors()
given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
length = given["shape"][1]
ids = [tokenizer.bos_id(), *tokenizer.encode(text)][-length:]
prompt = len(ids)
while len(ids) < min(length, prompt + 32):
    padded = np.array([ids + [0] * (length - len(ids))], np.int32)
    interpreter.set_tensor(given["index"], padded)
    interpreter.invoke()
    token = int(interpreter.get_tensor(made["index"])[0, len(ids) - 1, 3:].argmax()) + 3
    if token == tokenizer.eos_id():
        break
    ids.append(token)
print(text + tokenizer.decode(ids[prompt:]))
