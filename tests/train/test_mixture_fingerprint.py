"""A training under other weights of the sources is another training, with the same rows."""

from components.train import fingerprint
from components.train.config import TrainingJob
from pipeline.loader import load_config
from tokenmill.rows.packed_split import PackedSplit


def settings_of(rows, **manifest):
    split = PackedSplit(rows, "train")
    split.manifest = split.manifest.model_copy(update=manifest)
    job: TrainingJob = load_config("demo").training_job()
    return fingerprint.settings_of(job) | {
        "rows": fingerprint.rows_fingerprint(split),
        **fingerprint.mixture_of(split),
    }


def test_other_weights_or_limits_are_another_training(counting_rows):
    plain = settings_of(counting_rows)
    assert not [name for name in plain if name.startswith("mixture.")]
    weighted = settings_of(counting_rows, source_weights={"b": 1.0, "a": 2.0})
    same = settings_of(counting_rows, source_weights={"a": 2.0, "b": 1.0})
    others = [
        plain,
        weighted,
        settings_of(counting_rows, source_weights={"a": 1.0, "b": 1.0}),
        settings_of(counting_rows, max_repetitions=2),
    ]
    names = {fingerprint.directory_name(settings) for settings in others}
    assert len(names) == 4
    assert fingerprint.directory_name(same) == fingerprint.directory_name(weighted)


def test_a_checkpoint_goes_on_under_another_mixture_where_it_is_told_to(counting_rows):
    before = settings_of(counting_rows, source_weights={"a": 2.0, "b": 1.0})
    now = settings_of(counting_rows, source_weights={"a": 1.0, "b": 1.0})
    changed = fingerprint.changes(before, now)
    assert list(changed) == ["mixture.source_weights"]
    fingerprint.check_changes(changed, "there")  # nothing that makes it useless
    assert "mixture.source_weights from {'a': 2.0, 'b': 1.0}" in fingerprint.describe(changed)
