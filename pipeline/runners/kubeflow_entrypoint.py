"""TFX's entry point of a step in a container, for the step whose output is an HTML artifact.

TFX finds the class of an output by its type: its own by name, others as an import path. Kubeflow's
own type system.HTML is neither; it is added to TFX's names before TFX's module runs.
"""

import runpy

if __name__ == "__main__":
    from tfx.orchestration.kubeflow.v2 import compiler_utils

    from components.artifacts import HTML

    compiler_utils.TITLE_TO_CLASS_PATH[HTML.TYPE_NAME] = f"{HTML.__module__}.{HTML.__qualname__}"
    runpy.run_module(
        "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
        run_name="__main__",
        alter_sys=True,
    )
