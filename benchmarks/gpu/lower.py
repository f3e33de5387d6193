"""Lower the Trainer's step of one case to HLO, to be run where TensorFlow is not installed.

On one device the step is three XLA programs: `accumulate` (forward and backward pass),
`mean_gradients` (mean, clipping, whether all is finite) and `apply` (AdamW). They are written as
TensorFlow hands them to XLA, before any optimization, beside case.json, which says what each
parameter is. TensorFlow lowers for the CPU here: where its kernels differ by device, this is the
CPU's.
"""

import argparse
import gzip
import inspect
import json
import pathlib
import re

import tensorflow as tf
import trainer as trainers

_ALIAS = re.compile(r"\{(\d*)\}: \((\d+), \{\}, (?:may|must)-alias\)")


def main() -> None:
    """Write the programs and case.json of the case that the options name."""
    parser = argparse.ArgumentParser(description=__doc__)
    trainers.case_options(parser)
    parser.add_argument("--no-tf32", action="store_true", help="products of float32 in full")
    parser.add_argument("--reference-steps", type=int, default=0, help="steps to run here, too")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    if options.no_tf32:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    shape = trainers.preset_shape(options.length, options.small)
    trainer = trainers.make_trainer(shape, options.precision, options.rows)
    of_step = inspect.getclosurevars(trainer.step.python_function).nonlocals
    of_compute = inspect.getclosurevars(of_step["compute"]).nonlocals
    gradients = [tf.zeros(v.shape) for v in trainer.model.trainable_variables]
    sums = (tf.zeros([]), tf.zeros([]), gradients)
    programs = {
        "accumulate": (of_compute["accumulate"], (trainer.batch, tf.constant(0))),
        "mean_gradients": (of_compute["mean_gradients"], ([sums],)),
        "apply": (of_step["apply"], (gradients,)),
    }
    names = {id(v.value.handle): v.path for v in trainer.optimizer.variables}
    names |= {id(v.value.handle): v.path for v in trainer.model.variables}
    options.out.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, (function, arguments) in programs.items():
        ir = function.experimental_get_compiler_ir(*arguments)
        proto, text = ir(stage="hlo_serialized"), ir(stage="hlo")
        (options.out / f"{name}.hlo.gz").write_bytes(gzip.compress(proto, mtime=0))
        captured = function.get_concrete_function(*arguments).captured_inputs
        header = text[: text.index("\n")]
        described[name] = {
            "variables": [names[id(handle)] for handle in captured],
            "updates": {int(out or 0): int(of) for out, of in _ALIAS.findall(header)},
        }
    state = [
        {
            "path": variable.path,
            "shape": [int(n) for n in variable.shape],
            "dtype": str(variable.dtype),
            "value": 0.0 if len(variable.shape) else float(variable.numpy()),  # moments begin at 0
        }
        for variable in trainer.optimizer.variables
    ]
    case = {
        "rows": options.rows,
        "length": options.length,
        "precision": options.precision,
        "tf32": not options.no_tf32,
        "tensorflow": tf.__version__,
        "vocab_size": shape.vocab_size,
        "layers": shape.layers,
        "d_model": shape.d_model,
        "heads": shape.heads,
        "parameters": shape.params_total,
        "programs": described,
        "weights": trainer.weights,
        "state": state,
        "forecast": trainers.forecast(shape, options.precision, options.rows, options.chip),
    }
    if options.reference_steps:
        case["reference_losses"] = trainers.losses(trainer, options.reference_steps)
    (options.out / "case.json").write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
