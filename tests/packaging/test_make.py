"""The Makefile, the constraints and the CI script: what a fresh clone relies on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"([a-z0-9._-]+)==([0-9][0-9a-z.]*)")
TARGETS = [
    "setup",
    "run",
    "test",
    "test-agents",
    "clients",
    "check",
    "compile",
    "test-compiled",
    "load",
    "soak",
    "compare",
    "profile",
    "constraints",
    "clean",
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(canonical_pair(line) for line in lines if not line.startswith("#"))


def canonical_pair(line: str) -> tuple[str, str]:
    found = PIN.fullmatch(line)
    assert found, f"a constraint is a name and a version, nothing else: {line!r}"
    return canonical(found[1]), found[2]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_every_declared_dependency_is_pinned_to_a_version_it_allows() -> None:
    optional = [entry for group in PROJECT["optional-dependencies"].values() for entry in group]
    pinned = pins()
    for requirement in map(Requirement, PROJECT["dependencies"] + optional):
        assert requirement.specifier.contains(pinned[canonical(requirement.name)]), requirement


def test_the_product_does_not_pin_itself() -> None:
    assert canonical(PROJECT["name"]) not in pins()


def test_make_alone_lists_every_target() -> None:
    listed = make().stdout
    assert [target for target in TARGETS if f"make {target} " not in listed] == []


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_says_in_one_line_what_it_does(target: str) -> None:
    planned = make("--dry-run", target)
    assert planned.returncode == 0, planned.stderr
    assert re.search(r'^echo "[A-Z][^"]+"$', planned.stdout, re.MULTILINE), planned.stdout


INSTALLS = "install --quiet --constraint constraints.txt --editable '.[dev]'"


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_the_set_up_is_done_once_and_again_when_what_it_installs_has_changed(
    changed: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1000, 1000))
    assert INSTALLS in make("--dry-run", "setup", folder=tmp_path).stdout
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    assert INSTALLS not in make("--dry-run", "setup", folder=tmp_path).stdout
    os.utime(tmp_path / ".venv" / ".installed", (2000, 2000))
    os.utime(tmp_path / changed, (3000, 3000))
    assert INSTALLS in make("--dry-run", "setup", folder=tmp_path).stdout


def test_the_last_thing_make_test_runs_is_pytest() -> None:
    assert "pytest" in make("--dry-run", "test").stdout.strip().splitlines()[-1]


def test_ci_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make test", "make test-compiled", "make check"]
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_no_file_of_the_packaging_names_a_package_index_or_a_place_of_one_machine() -> None:
    for name in ("Makefile", "Dockerfile", ".dockerignore", "constraints.txt", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|pypi|/home/|/root/|/work/", text), name


def test_a_requirement_of_the_real_clients_is_a_name_and_its_versions() -> None:
    folder = ROOT / "tests" / "clients" / "requirements"
    for line in (line for file in folder.glob("*.txt") for line in file.read_text().splitlines()):
        if line != "--constraint ../../../constraints.txt":
            alias = r"([a-z-]+@npm:)?"
            assert re.fullmatch(alias + r"(@[a-z-]+/)?[a-z0-9.-]+(\[[a-z,]+\])?(~=|@~?)[0-9.]+", line), line
