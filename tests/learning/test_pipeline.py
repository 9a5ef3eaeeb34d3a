"""What the card of an initialisation says of the code that made it."""

import shutil
import subprocess

import pytest

from meta_lrpinn.learning import pipeline


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_of_the_package_and_of_nothing_around_it(tmp_path, monkeypatch):
    def git(*command):
        name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *name, *command], cwd=tmp_path, check=True)

    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "pipeline.py"))
    assert pipeline._commit() == ""
    (tmp_path / "pipeline.py").touch()
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message=another project")
    assert pipeline._commit() == ""
    git("add", "pipeline.py")
    git("commit", "--quiet", "--message=this one")
    assert len(pipeline._commit()) >= 7
