"""README and docs: links lead somewhere, commands are run by a test or say what they need, snippets work."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from toy_gains import two_targets
from xlift.cli import _parser, main
from xlift.grid import Grid
from xlift.study import parse_study, read_yaml

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "config" / "README.md",
        ROOT / "profiles" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
    if path.exists()
]
MARKS = (
    "needs the hub",
    "needs a GPU",
    "needs a SLURM cluster",
    "needs a finished study",
    "needs XTREME's evaluator",
    "takes minutes",
)
"""What a command's comment, or the comment line before it, says where no test runs it."""
PROGRAMS = ("cp", "git", "hf", "make", "pip", "python", "scancel", "snakemake", "xlift")
HERE = ("check", "tasks", "status")
"""Commands of `xlift` that are run by this module."""
STUDY = r"config/(config|study|mine)\.yaml"
ELSEWHERE = {
    rf"xlift answer {STUDY}": "tests/workflow/test_end_to_end.py::test_answer",
    rf"xlift power {STUDY}": "tests/unit/test_power.py::test_the_command_prints_a_table_and_writes_it_with_a_figure",
    rf"xlift plan {STUDY}( --device \w+| --workers \d+)*": "tests/unit/test_planning.py::test_the_command",
    rf"xlift doctor {STUDY}": "tests/unit/test_doctor.py::test_the_command_fails_where_there_is_a_problem",
    rf"xlift run {STUDY}": "tests/unit/test_live.py::test_control_c_reaches_snakemake_and_its_jobs",
    rf"xlift status {STUDY} --watch.*": "tests/unit/test_cli.py::test_watching_looks_again_every_few_seconds",
    rf"snakemake --configfile {STUDY} --cores all results/\S+": (
        "tests/workflow/test_reruns_page.py::test_what_is_asked_for_comes_back"
    ),
    rf"xlift export {STUDY}( \S+)? --format json": "tests/unit/test_results_json.py::test_the_command",
    r"xlift compare config/first\.yaml config/second\.yaml( --json)?": "tests/unit/test_compare.py::test_the_command",
    rf"xlift export {STUDY} \S+": "tests/unit/test_export.py::test_the_command_exports_one_cell_or_all_of_a_target",
    r"snakemake --dry-run --config \S+": "tests/workflow/test_dag.py::test_config_overrides",
    r"snakemake --dry-run --config '.*learning_rate.*'": "tests/workflow/test_dag.py::test_config_overrides",
    rf"snakemake --dry-run( --configfile {STUDY})?": "tests/workflow/test_dag.py::test_default_study",
    r"snakemake --dry-run results/\S+\.parquet": "tests/workflow/test_reruns.py::test_deleted_prediction",
    rf"snakemake --cores 2 report_available( --configfile {STUDY})?": (
        "tests/workflow/test_available.py::test_missing_cells_are_named_and_the_others_are_as_in_the_whole"
    ),
    rf"snakemake --unlock --configfile {STUDY}": "tests/workflow/test_interrupts.py::test_killed_snakemake",
}
"""Commands that other tests run, as those tests run them on a study of seconds."""
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command of a page; `comment` is that of its line, or of the line before it."""

    page: str
    text: str
    comment: str

    @property
    def marked(self) -> bool:
        return any(mark in self.comment for mark in MARKS)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of fenced and of indented blocks."""
    for indent, language, content in FENCE.findall(text):
        yield language, re.sub(f"^{indent}", "", content, flags=re.MULTILINE)
    for block in re.findall(r"(?:^ {4,}\S.*\n)+", FENCE.sub("", text), re.MULTILINE):
        yield "indented", re.sub(r"^ +", "", block, flags=re.MULTILINE)


def commands_of(page: Path) -> Iterator[Command]:
    """Every command of a page. In a block of shell each line is one; in an indented one, what begins as one does."""
    for language, content in blocks(page.read_text(encoding="utf-8")):
        if language not in ("bash", "sh", "console", "indented"):
            continue
        before = ""
        for line in re.sub(r"\\\n *", "", content).splitlines():
            command, _, comment = (part.strip() for part in re.sub(r"(^|\s)# ?", "\0", line, count=1).partition("\0"))
            if command and (language != "indented" or command.split()[0] in PROGRAMS):
                yield Command(page.name, command, f"{before} {comment}")
            before = "" if command else comment


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def words(text: str) -> list[str]:
    """A command's words, with names in the place of what a reader fills in."""
    return shlex.split(re.sub(r"<yours>", "study", text).replace("<", "").replace(">", ""))


def test_the_pages_are_found():
    assert {page.name for page in PAGES} >= {"README.md", "tutorial.md", "faq.md", "artifacts.md"}
    assert len(COMMANDS) > 40
    assert {command.text.split()[0] for command in COMMANDS} <= set(PROGRAMS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_a_command_is_run_by_a_test_or_says_what_it_needs(command: Command):
    plain = shlex.join(words(command.text)) if "learning_rate" in command.text else " ".join(words(command.text))
    found = [test for pattern, test in ELSEWHERE.items() if re.fullmatch(pattern, plain)]
    first = words(command.text)
    here = (first[0] == "xlift" and first[1] in HERE) or first[0] == "cp"
    assert here or found or command.marked, f"no test runs it, and its comment has none of: {', '.join(MARKS)}"


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_run_commands_exist(test: str):
    file, name = test.split("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_xlift_command_parses_and_its_study_files_are_there():
    given = [words(command.text) for command in COMMANDS if command.text.startswith("xlift ")]
    assert len(given) > 10
    for command in given:
        options, rest = _parser().parse_known_args(command[1:])
        assert not rest or options.command == "run", command
    # Named in running text.
    known = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)).choices
    for page in PAGES:
        for name in re.findall(r"`xlift (\w+)", page.read_text(encoding="utf-8")):
            assert name in known, f"{page.name}: xlift {name}"


def test_every_snakemake_command_parses_and_its_profile_is_there():
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    given = [words(command.text) for command in COMMANDS if command.text.startswith("snakemake ")]
    assert len(given) > 10
    for command in given:
        for profile in parser.parse_args(command[1:]).profile or []:
            assert (ROOT / profile).is_dir(), command


def test_make_targets_and_data_sets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([\w-]+)`", text)) <= targets, page.name
    assert {words(command.text)[1] for command in COMMANDS if command.text.startswith("make ")} <= targets


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's checkout with the study files that pages name."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for name in ("study", "mine"):
        shutil.copy(ROOT / "config" / "config.yaml", tmp_path / "config" / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cheap_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]):
    given = {" ".join(words(command.text)) for command in COMMANDS if not command.marked}
    cheap = sorted(text for text in given if text.startswith("xlift") and text.split()[1] in HERE)
    cheap = [text for text in cheap if "--watch" not in text]  # until Control-C
    assert {text.split()[1] for text in cheap} == set(HERE)
    for text in cheap:
        assert main(words(text)[1:]) == 0, f"{text}: {capsys.readouterr().err}"
    for text in sorted(text for text in given if text.startswith("cp ")):
        subprocess.run(words(text), cwd=folder, check=True)


def test_outputs_that_are_quoted_are_those(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^<!-- output: (.*?) -->\n```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert quoted
    for command, output in quoted:
        assert main(words(command)[1:]) == 0
        assert capsys.readouterr().out == output


def anchors(page: Path) -> set[str]:
    """Anchors that repository pages give a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug, count = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"), 0
        while f"{slug}{f'-{count}' if count else ''}" in found:
            count += 1
        found.add(f"{slug}{f'-{count}' if count else ''}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "docs").glob("*.md") if f"]({path.name})" not in index]
    assert missing in ([], ["README.md"])


def test_pictures_are_small():
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.stat().st_size < 200_000, picture.name


def snippets(page: str, language: str) -> list[tuple[str, str]]:
    """Blocks of a page in a language, with the name that a comment gives them."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(rf"(?:^<!-- example: ([^\n]*) -->\n)?^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    return found


DEFAULT = read_yaml(ROOT / "config" / "config.yaml")


def changed(text: str) -> dict[str, Any]:
    """The default study with the blocks of a snippet in the place of its own."""
    return {**DEFAULT, **yaml.safe_load(text)}


def test_numbers_of_jobs_on_the_tutorial_are_the_grids():
    text = " ".join((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8").split())
    three, four = (Grid(parse_study({**DEFAULT, "seeds": seeds}, "x"), "x") for seeds in ([1, 2, 3], [1, 2, 3, 4]))
    added = [
        len(four.intermediates) - len(three.intermediates),
        len(list(four.target_runs())) - len(list(three.target_runs())),
        len(four.cells) - len(three.cells),
    ]
    told = re.search(r"(\d+) `train_intermediate`, (\d+) `train_target` .*? (\d+) `predict_cell`", text)
    assert told is not None
    assert [int(number) for number in told.groups()] == added
    of_one = [sum(cell.target == "cldr_kind" for cell in cells) for cells in (three.target_runs(), three.cells)]
    assert "{} `train_target` and {} `predict_cell`".format(*of_one) in text


@pytest.mark.parametrize(
    "page", ["tutorial.md", "your-own-study.md", "adding-an-encoder.md", "adding-a-resource-table.md", "faq.md"]
)
def test_settings_on_the_pages_are_accepted(page: str):
    for name, text in snippets(page, "yaml"):
        parse_study(changed(text), page)
        assert name != "default study" or yaml.safe_load(text) == DEFAULT


def test_an_encoder_from_a_folder_is_checked_without_being_opened(folder: Path):
    settings = dict(snippets("adding-an-encoder.md", "yaml"))
    (folder / "hub").mkdir()
    study = changed(settings["study"]) | yaml.safe_load(settings["root"])
    (folder / "config" / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    assert main(["check", "config/study.yaml"]) == 0


@pytest.fixture
def sizes(folder: Path) -> dict[str, str]:
    """The page's study, and a line a language: the page's, and one for each of the others."""
    (folder / "config" / "study.yaml").write_text(
        yaml.safe_dump(changed(dict(snippets("adding-a-resource-table.md", "yaml"))["study"])), encoding="utf-8"
    )
    given = dict(snippets("adding-a-resource-table.md", "csv"))["sizes.csv"].splitlines()
    assert given[0] == "iso2,size"
    codes = pl.read_csv(folder / "config" / "languages.csv")["iso2"]
    return {code: f"{code},5" for code in codes if code != "en"} | {line.split(",")[0]: line for line in given[1:]}


def write_sizes(folder: Path, lines: list[str]) -> None:
    (folder / "config" / "sizes.csv").write_text("\n".join(["iso2,size", *lines]) + "\n", encoding="utf-8")


def test_the_resource_table_of_the_page_is_taken(folder: Path, sizes: dict[str, str]):
    write_sizes(folder, list(sizes.values()))
    assert main(["check", "config/study.yaml"]) == 0


@pytest.mark.parametrize(
    "wrong",
    ["lacks af", "given twice", "is not a number above 0", "has no bounds", "below 0.1"],
)
def test_a_wrong_resource_table_is_refused_in_the_words_of_the_page(
    wrong: str, folder: Path, sizes: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    text = (ROOT / "docs" / "adding-a-resource-table.md").read_text(encoding="utf-8")
    said = next(found for found in re.findall(r"^\| .*? \| `(.*)` \|$", text, re.MULTILINE) if wrong in found)
    study = yaml.safe_load((folder / "config" / "study.yaml").read_text(encoding="utf-8"))
    lines = list(sizes.values())
    if wrong == "lacks af":
        lines = [line for line in lines if line != sizes["af"]]
    elif wrong == "given twice":
        lines = ["sw,1", "de,1", "de,2"]
    elif wrong == "is not a number above 0":
        lines = ["de,1", "sw,0"]
    elif wrong == "has no bounds":
        study["contrasts"] = {"resource": "config/sizes.csv"}
    else:
        study["contrasts"]["low_below"] = 0.1
    (folder / "config" / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    write_sizes(folder, lines)
    assert main(["check", "config/study.yaml"]) == 1
    assert re.search(r".*".join(map(re.escape, said.split("..."))).replace(r"\ .*", ".*"), capsys.readouterr().err)


def test_python_on_the_artifacts_page_runs(folder: Path):
    ((_, code),) = snippets("artifacts.md", "python")
    (folder / "results" / "mini").mkdir(parents=True)
    gains = two_targets()
    gains.write_parquet(folder / "results" / "mini" / "gains.parquet")
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    shown = re.search(r"shape: \((\d+), 3\)", ended.stdout)
    kept = gains.filter(pl.col("is_primary") & (pl.col("language") != "en"))
    assert shown is not None
    assert int(shown[1]) == kept.select("language", "budget").n_unique()
