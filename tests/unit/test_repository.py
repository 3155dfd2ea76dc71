"""What is written down twice agrees: pins, generated references, study files, house rules of size."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from xlift.catalog import CATALOG
from xlift.grid import Grid
from xlift.languages import load_languages
from xlift.reference import readme_text, schema_text
from xlift.study import Study, parse_study, read_yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]
LARGEST_MODULE, LARGEST_SCRIPT = 420, 40


def pins(lines: list[str]) -> dict[str, Version]:
    """Versions by name; every line is an exact pin, and no name stands twice."""
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), lines
    found = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(found) == len(lines)
    return found


LOCK = pins((ROOT / "envs" / "requirements.lock").read_text(encoding="utf-8").split())


def test_conda_environment_pins_what_the_lock_pins():
    environment = yaml.safe_load((ROOT / "envs" / "xlift.yaml").read_text(encoding="utf-8"))
    blocks = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert len(blocks) == 1
    assert pins(blocks[0]) == LOCK
    python = next(e for e in environment["dependencies"] if isinstance(e, str) and e.startswith("python="))
    assert PROJECT["requires-python"] == f">={python.removeprefix('python=')}"


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_lock_satisfies_every_requirement(requirement):
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_what_is_installed_is_in_range(requirement):
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed")
    assert requirement.specifier.contains(Version(installed).public, prereleases=True)


def test_torch_is_pinned_without_a_build_of_its_own():
    assert str(LOCK["torch"]) == "2.13.0"
    assert not any(version.local for version in LOCK.values())


@pytest.mark.parametrize(("name", "text"), [("README.md", readme_text), ("schema.json", schema_text)])
def test_generated_references_are_up_to_date(name, text):
    found = (ROOT / "config" / name).read_text(encoding="utf-8")
    assert found == text(), f"config/{name} is out of date: run `make reference`"


def test_schema_knows_every_setting():
    schema = json.loads((ROOT / "config" / "schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["additionalProperties"] is False


STUDIES = sorted((ROOT / "config").glob("*.yaml"))
MADE_BY_THE_STUDY = {"mixture"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_file_passes(path):
    settings = read_yaml(path)
    named = {*settings["intermediates"], *settings["targets"]} - MADE_BY_THE_STUDY
    if missing := sorted(named - {*CATALOG, *settings.get("tasks", {})}):
        pytest.skip(f"{', '.join(missing)}: not in the catalog")
    # Without the folders of data that it names, which are a user's.
    grid = Grid(parse_study(settings, str(path)), str(path))
    known = load_languages(ROOT / "config" / "languages.csv")
    assert all(set(grid.scored_languages(target)) <= set(known) for target in grid.study.targets)


def test_study_names_are_their_own():
    studies = [read_yaml(path)["study"] for path in STUDIES]
    assert studies
    assert len(set(studies)) == len(studies)  # or they would share a folder of results
    assert all(path.stem in (study, "config") for path, study in zip(STUDIES, studies, strict=True))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_and_no_script_has_two_jobs():
    modules = {str(path.relative_to(ROOT)): lines(path) for path in sorted((ROOT / "src").rglob("*.py"))}
    scripts = {
        str(path.relative_to(ROOT)): lines(path) for path in sorted((ROOT / "workflow" / "scripts").glob("*.py"))
    }
    assert modules
    assert scripts
    assert {name: count for name, count in modules.items() if count > LARGEST_MODULE} == {}
    assert {name: count for name, count in scripts.items() if count > LARGEST_SCRIPT} == {}


def terms(licence: str) -> list[str]:
    """The words of Apache 2.0's nine sections, whatever the lines and the appendix."""
    end = "additional liability."
    return licence[licence.index("1. Definitions.") : licence.index(end) + len(end)].split()


def test_licence_is_apache_2():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    # `packaging`, which is always installed, is under the same licence and carries it.
    reference = importlib.metadata.distribution("packaging").read_text("licenses/LICENSE.APACHE")
    assert reference is not None
    assert terms(text) == terms(reference)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == "Apache-2.0"
    assert citation["version"] == PROJECT["version"]


def make_targets() -> set[str]:
    """Targets of the Makefile, the one that installs under its own name."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(INSTALLED)", ".venv/.installed")
    return set(re.findall(r"^([\w./-]+):(?!=)", text, re.MULTILINE))


def test_citation_has_what_its_format_requires():
    """Citation File Format 1.2.0: keys that have to be there, of the citation and of each reference."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"authors", "message", "title"} <= set(citation)
    assert citation["type"] in ("software", "dataset")
    for entry in (citation, *citation["references"]):
        assert entry["title"]
        assert all("name" in author or "family-names" in author for author in entry["authors"])
    assert {reference["type"] for reference in citation["references"]} == {"conference-paper"}


def test_continuous_integration_calls_targets_that_there_are():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    called = {command.split("make ")[1] for command in commands}
    assert called == {"lint", "dag", "test", "test-slurm", ".venv/.installed"}
    assert called <= make_targets()
    # The folder that sets up a machine of another kind calls the same ones.
    assert set(re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)) <= called


PAGES = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("profiles/*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_targets_and_files_that_there_are(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named <= make_targets()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_containers_are_of_one_base_and_copy_what_there_is():
    docker, apptainer = ((ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "apptainer.def"))
    bases = {re.search(r"^From:? (\S+)$", text, re.MULTILINE | re.IGNORECASE)[1] for text in (docker, apptainer)}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases.pop())
    copied = {name for line in re.findall(r"^COPY (.+)$", docker, re.MULTILINE) for name in line.split()[:-1]}
    listed = apptainer.partition("%files")[2].partition("%post")[0].split()[::2]
    assert {name.partition("/")[0] for name in copied} == {*listed}
    assert [name for name in {*copied, *listed} if not (ROOT / name).exists()] == []
    # What the image leaves out is not asked for: all but what is listed is kept from Docker.
    kept = {
        line.removeprefix("!").partition("/")[0] for line in (ROOT / ".dockerignore").read_text().split() if "!" in line
    }
    assert kept == {*listed}
    assert all("has not been built" in text for text in (docker, apptainer))
    assert all("requirements.lock" in text for text in (docker, apptainer))
