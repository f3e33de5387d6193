"""Which of the others was lost, by what TensorFlow 2.16 said when it was; its stack left out."""

import json

import pytest
import tensorflow as tf

from components.train.distributed.cluster import name_peers, other_peers
from components.train.distributed.peers import SILENT_SECONDS, describe_loss

HEADER = """Graph execution error:

Detected at node CollectiveReduceV2 defined at (most recent call last):
  File "components/train/step.py", line 278, in step

"""
AFTER = (
    "\nThe error could be from a previous operation. Restart your program to reset.\n"
    "\t [[{{node CollectiveReduceV2}}]] [Op:__inference_step_7864]"
)
TIMEOUT = (
    "Collective ops is aborted by: Error reported from /job:worker/task:0: Task "
    "/job:worker/replica:0/task:0 heartbeat timeout. This indicates that the remote task has "
    "failed, got preempted, or crashed unexpectedly."
)
DEADLINE = (
    "Collective ops is aborted by: Deadline Exceeded\nAdditional GRPC error information from "
    "remote target /job:chief/replica:0/task:0 while calling "
    "/tensorflow.CoordinationService/Heartbeat:"
)
RESET = (
    "Collective ops is aborted by: Connection reset by peer\nAdditional GRPC error information "
    "from remote target /job:chief/replica:0/task:0 while calling "
    "/tensorflow.WorkerService/CompleteInstance:"
)
ENDED = "Collective ops is aborted by: the process at /job:worker/replica:0/task:1 has ended"
CLUSTER = {"chief": ["one:2222"], "worker": ["two:2222", "three:2222"]}


@pytest.fixture
def be(monkeypatch):
    """Become one of three."""

    def become(kind, number):
        task = {"cluster": CLUSTER, "task": {"type": kind, "index": number}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))

    return become


def test_the_others_have_the_names_of_tensorflow(be):
    be("worker", 0)
    assert [(peer.index, peer.task) for peer in other_peers()] == [
        (0, "/job:chief/replica:0/task:0"),
        (2, "/job:worker/replica:0/task:1"),
    ]
    assert name_peers(other_peers()) == "worker 0 of 3 (one:2222), worker 2 of 3 (three:2222)"


@pytest.mark.parametrize(
    ("me", "said", "sentence"),
    [
        (("chief", 0), TIMEOUT, "worker 1 of 3 (two:2222) was lost: no answer for 75 to 150 s."),
        (("worker", 0), DEADLINE, "worker 0 of 3 (one:2222) was lost: no answer for 75 to 150 s."),
        (("worker", 1), RESET, "worker 0 of 3 (one:2222) was lost: Connection reset by peer."),
        (("chief", 0), ENDED, "worker 2 of 3 (three:2222) was lost: its process has ended."),
        (
            ("chief", 0),
            "Socket closed",
            "one of worker 1 of 3 (two:2222), worker 2 of 3 (three:2222) was lost: Socket closed.",
        ),
    ],
)
def test_a_loss_is_a_sentence_that_names_the_other(be, me, said, sentence):
    be(*me)
    assert SILENT_SECONDS == 150
    assert describe_loss(RuntimeError(HEADER + said + AFTER)) == sentence


def test_what_need_not_be_a_loss_is_not_told_as_one(be):
    be("chief", 0)
    error = tf.errors.InternalError(None, None, "Out of scratch space.")
    assert describe_loss(error) == (
        "a step failed, perhaps since one of worker 1 of 3 (two:2222), worker 2 of 3 (three:2222) "
        "was lost: Out of scratch space."
    )
