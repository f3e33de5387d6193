"""Runs leave nothing behind; what a killed one does leave goes with the next run."""

from pipeline.runners.local import remove_left_over


def test_only_temporary_directories_of_steps_are_removed(tmp_path):
    root = tmp_path / "out [1]" / "artifacts"
    executions = ".system/executor_execution"
    gone = [
        root / "Curator" / executions / "7/.temp/1/staging/a.ids",
        root / "CorpusExampleGen" / executions / "12/.temp/x",
    ]
    stay = [
        root / "Curator/curated_examples/7/Split-train/documents.gz",
        root / "Curator" / executions / "7/executor_output.pb",
        tmp_path / "out 1/artifacts/Curator" / executions / "1/.temp/x",
    ]
    for path in (*gone, *stay):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    remove_left_over(str(root))
    assert not any(path.exists() for path in gone)
    assert not list(root.glob("*/.system/executor_execution/*/.temp"))
    assert all(path.exists() for path in stay)
    remove_left_over(str(tmp_path / "nothing here"))


def test_a_run_leaves_no_file_in_the_temporary_directory(first_run, workspace):
    # TFX packs itself up for Beam's workers, 49 MB a step, unless it is told that they have it.
    assert [path for path in workspace.temporary.rglob("*") if path.is_file()] == []
