"""Beam's arguments where nobody gives a runner: steps run in this process, in Python.

From 2.68 on Beam's DirectRunner, its default, means Prism, a program in Go that it downloads from
GitHub, and starts over with Python's own runner where it cannot. So Python's own is named.
"""

from collections.abc import Iterable

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# Without an image TFX packs itself up for Beam's workers in each step, and leaves 49 MB in the
# temporary directory each time; these workers are on this machine and have it.
IN_PROCESS = (
    f"--runner={RUNNER}",
    "--direct_running_mode=in_memory",
    "--direct_num_workers=1",
    "--sdk_container_image=none",
)


def beam_arguments(given: Iterable[str] = ()) -> list[str]:
    """Return Beam's arguments: the given ones, on Python's own runner unless they name one.

    Of an option that is given twice Beam takes the last, so the given ones win:
    `--direct_running_mode=multi_processing --direct_num_workers=4` runs in four processes.
    """
    given = list(given)
    if PipelineOptions(given).view_as(StandardOptions).runner:
        return given
    return [*IN_PROCESS, *given]


def shuffles_in_memory(options: PipelineOptions) -> bool:
    """Tell whether Beam's runner in Python runs a pipeline: it keeps in memory what it shuffles."""
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    return runner.split(".")[-1] in ("DirectRunner", "FnApiRunner", "SwitchingDirectRunner")
