"""The command line: what it checks, what it hands on, and how it fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from xlift.cli import main
from xlift.grid import Grid
from xlift.study import load_study, parse_study, typed_overrides

REPOSITORY = Path(__file__).parents[2]
DEFAULT = REPOSITORY / "config" / "config.yaml"


class HandedOverError(Exception):
    """The process would have become another program."""


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """Commands that would have taken this process's place."""
    seen: list[list[str]] = []

    def record(program, command):
        assert program == command[0]
        seen.append(command)
        raise HandedOverError

    monkeypatch.setattr(os, "execv", record)
    return seen


def test_run_hands_the_study_and_other_options_to_snakemake(commands):
    with pytest.raises(HandedOverError):
        main(["run", str(DEFAULT), "--keep-going", "-n"])
    with pytest.raises(HandedOverError):
        main(["run", str(DEFAULT), "--cores", "4"])
    # A profile says by itself how many jobs run at a time, and a job script is no number of them.
    for options in (["-j2"], ["--jobs=3"], ["--profile", "slurm"]):
        with pytest.raises(HandedOverError):
            main(["run", str(DEFAULT), *options])
        assert commands.pop() == [sys.executable, "-m", "snakemake", *options, "--configfile", str(DEFAULT)]
    with pytest.raises(HandedOverError):
        main(["run", str(DEFAULT), "--jobscript", "x"])
    assert commands.pop()[3:7] == ["--jobscript", "x", "--cores", "all"]
    start = [sys.executable, "-m", "snakemake"]
    assert commands == [
        [*start, "--keep-going", "-n", "--cores", "all", "--configfile", str(DEFAULT)],
        [*start, "--cores", "4", "--configfile", str(DEFAULT)],
    ]


def test_run_refuses_a_missing_file_in_one_sentence(commands, tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.yaml")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'none.yaml'}: there is no such study file")
    assert error.count("\n") == 1
    assert commands == []


def test_answer_before_the_study_has_run_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["answer", str(DEFAULT)]) == 1
    error = capsys.readouterr().err
    assert "results/mini/report/index.html" in error
    assert "snakemake --cores all" in error


def test_unknown_options_are_refused():
    with pytest.raises(SystemExit, match="2"):
        main(["check", str(DEFAULT), "--fast"])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("3", 3),
        ("0.25", 0.25),
        ("true", True),
        ("null", None),
        ("cldr_kind", "cldr_kind"),
        (["1", "x"], [1, "x"]),
        ({"warmup": "0.1", "deep": ["2"]}, {"warmup": 0.1, "deep": [2]}),
        (7, 7),
    ],
)
def test_overrides_are_read_as_yaml_would(given, read):
    found = typed_overrides(given)
    assert found == read
    assert type(found) is type(read)


def test_a_number_with_an_exponent_is_a_number(tmp_path):
    path = tmp_path / "study.yaml"
    text = DEFAULT.read_text(encoding="utf-8")
    path.write_text(text + "recipes:\n  cldr_kind:\n    learning_rate: 1e-3\n", encoding="utf-8")
    assert load_study(path).recipes["cldr_kind"].learning_rate == 0.001


def test_moving_the_hub_folder_changes_no_specification():
    settings = {
        "study": "moved",
        "encoder": {"source": "hub", "id": "org/model", "revision": "abc"},
        "intermediates": ["cldr_pairs"],
        "budgets": [1],
        "seeds": [1],
        "targets": ["cldr_kind"],
    }
    grids = [
        Grid(parse_study({**settings, "data": {"root": root}}, "x"), "x") for root in ("/old/place", "/new/place", None)
    ]
    found = [(grid.encoder_specification(), grid.prediction_specification(grid.cells[-1])) for grid in grids]
    assert found[0] == found[1] == found[2]


def test_status_of_a_study_that_has_not_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["status", str(DEFAULT)]) == 0
    assert capsys.readouterr().out.startswith("mini: 63 cells: 63 not begun\n")
    assert main(["status", str(DEFAULT), "--watch", "0"]) == 1
    assert capsys.readouterr().err == "error: --watch 0: is no number of seconds; give one above 0\n"


def test_status_needs_no_data(tmp_path, monkeypatch, capsys):
    """Where a study stands is looked up from machines that do not have its folders of data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["status", str(REPOSITORY / "config" / "xtreme_r.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "xtreme_r: 2805 cells: 2805 not begun"
    assert max(map(len, lines[2:])) <= 80


def test_watching_looks_again_every_few_seconds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["status", str(DEFAULT), "--watch"]) == 130
    assert waited == [5.0, 5.0]
    assert capsys.readouterr().out.count("\033[2J\033[Hmini: 63 cells: 63 not begun\n") == 2


def test_run_shows_live_lines_in_a_terminal_only(commands, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for options in ([], ["--no-progress"], ["--logger", "other"]):
        with pytest.raises(HandedOverError):
            main(["run", str(DEFAULT), *options])
    handed = [command[3 : command.index("--cores")] for command in commands]
    assert handed == [["--logger", "xlift"], [], ["--logger", "other"]]
