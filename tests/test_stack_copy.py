"""The copy of the tree that tools/test_stack.py tests on the other stack."""

import importlib.util
import pathlib
import subprocess

spec = importlib.util.spec_from_file_location(
    "test_stack_tool", pathlib.Path(__file__).parents[1] / "tools" / "test_stack.py"
)
test_stack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_stack)


def test_the_copy_has_what_git_would_add_and_keeps_its_environment(tmp_path, monkeypatch):
    here, tree = tmp_path / "here", tmp_path / "here" / "build" / "modern"
    monkeypatch.setattr(test_stack, "HERE", here)
    nested = here / "nested"
    nested.mkdir(parents=True)
    for repository in (here, nested):
        subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", *name, "commit", "--quiet", "--allow-empty", "-m", "one"]
    subprocess.run(command, cwd=nested, check=True)
    (here / ".gitignore").write_text("build/\n")
    (here / "a file").write_text("kept")
    (here / "link").symlink_to("/nowhere")
    (tree / ".venv").mkdir(parents=True)
    (tree / "deleted since").touch()
    test_stack.copy_tree(tree)
    assert {path.name for path in tree.iterdir()} == {
        ".git", ".gitignore", ".venv", "a file", "link"
    }  # fmt: skip
