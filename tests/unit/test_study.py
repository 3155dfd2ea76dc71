"""The study file: what is wrong is said in one sentence that names file and key and what would be right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from xlift.analysis import study_levels
from xlift.cli import main
from xlift.errors import UserError
from xlift.grid import Grid, plan_specification
from xlift.languages import load_languages
from xlift.planning.plan import Plan, make_plan
from xlift.study import Study, check_paths, load_study, parse_study, read_yaml

ROOT = Path(__file__).parents[2]
LANGUAGES = load_languages(ROOT / "config" / "languages.csv")
GOOD: dict[str, Any] = {
    "study": "mini",
    "intermediates": ["cldr_pairs", "cldr_qa"],
    "budgets": [0.25, 1, 4],
    "seeds": [1, 2, 3],
    "targets": ["cldr_retrieval", "cldr_kind"],
    "languages": ["de", "sw"],
}


def refusal(settings: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        Grid(parse_study(settings, "my.yaml"), "my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: ")
    assert "\n" not in message
    assert "pydantic" not in message
    return message.removeprefix("my.yaml: ")


def test_defaults():
    study = parse_study({k: v for k, v in GOOD.items() if k != "languages"}, "my.yaml")
    assert study.encoder.source == "packaged"
    assert (study.trainable.method, study.trainable.rank, study.training.warmup) == ("lora", 8, 0.1)
    assert study.languages == "all"
    assert [entry.times for entry in study.budgets] == [0.25, 1.0, 4.0]
    assert len(study.target_languages("cldr_kind")) == 49
    assert parse_study(GOOD, "my.yaml").target_languages("cldr_kind") == ["de", "en", "sw"]
    with pytest.raises(Exception, match="frozen"):
        study.study = "other"


# Change to a good study, then what the sentence has to say: the key, what is wrong, what would be right.
BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"seed": [1]}, ["seed: is not a setting", "did you mean 'seeds'?"]),
    ({"colour": 1}, ["colour: is not a setting", "the settings here are budgets, contrasts,"]),
    ({"training": {"warm_up": 0.1}}, ["training.warm_up: is not a setting", "did you mean 'warmup'?"]),
    ({"trainable": {"ranks": 8}}, ["trainable.ranks: is not a setting", "did you mean 'rank'?"]),
    ({"contrasts": {"low": 2}}, ["contrasts.low: is not a setting", "low_below"]),
    ({"encoder": {"source": "packaged", "id": "a/b"}}, ["encoder.id: is not a setting", "source"]),
    ({"recipes": {"cldr_kind": {"step": 3}}}, ["recipes.cldr_kind.step: is not a setting", "'steps'"]),
    ({"intermediates": ["cldr_pair"]}, ["intermediates: 'cldr_pair' is not", "did you mean 'cldr_pairs'?"]),
    ({"intermediates": ["cldr_kind"]}, ["intermediates: 'cldr_kind' is not an intermediate task", "cldr_"]),
    ({"intermediates": ["none"]}, ["intermediates: 'none' is not an intermediate task", "cldr_choice"]),
    ({"targets": ["xyz"]}, ["targets: 'xyz' is not a target task", "cldr_entities, cldr_kind, cldr_retrieval"]),
    ({"languages": ["de", "xx"]}, ["languages: 'xx' is not a language of these targets", "choose from|did you mean"]),
    ({"languages": ["de", "ht"]}, ["languages: 'ht' is not a language of these targets", "choose from|did you mean"]),
    ({"languages": ["en"]}, ["languages: only English", "add a language"]),
    ({"languages": "de"}, ["languages: 'de'", "write `all` or a list"]),
    ({"languages": 3}, ["languages: 3", "write `all` or a list"]),
    ({"languages": []}, ["languages", "write `all` or a list|at least one"]),
    ({"languages": ["no", "de"]}, ["languages: 'no' is not a language", "choose from|did you mean"]),
    ({"budgets": [-1]}, ["budgets: -1 is not a budget", "above 0"]),
    ({"budgets": [0]}, ["budgets: 0 is not a budget", "above 0"]),
    ({"budgets": [float("nan")]}, ["budgets.0: the number is not finite", "write a plain one"]),
    ({"budgets": [float("inf")]}, ["budgets.0: the number is not finite", "write a plain one"]),
    ({"budgets": [1e300]}, ["budgets.0: the number is out of range"]),
    ({"budgets": [10**400]}, ["budgets.0: the number is out of range"]),
    ({"budgets": [20_000]}, ["budgets: 20000 is not a budget", "at most 10000"]),
    ({"budgets": ["1"]}, ["budgets.0: '1' is not a number", "without quotes"]),
    ({"budgets": [True]}, ["budgets.0: True is not a number", "write a number"]),
    ({"budgets": 1}, ["budgets: 1 is not a list", "write one such as"]),
    ({"budgets": []}, ["budgets: the list is empty", "at least one"]),
    ({"budgets": [1, 1.0]}, ["budgets: 1 is listed twice", "list it once"]),
    (
        {"budgets": [0.001], "recipes": {"cldr_pairs": {"steps": 48}}},
        ["budgets: 0.001 of cldr_pairs's 48 reference steps rounds to zero", "one step is"],
    ),
    ({"seeds": [-1]}, ["seeds.0: -1 is not right", "greater than or equal to 0"]),
    ({"seeds": [2**31]}, ["seeds.0: 2147483648 is not right", "less than 2147483648"]),
    ({"seeds": [1.5]}, ["seeds.0: 1.5 is not right", "integer"]),
    ({"seeds": [1, 2, 1]}, ["seeds: 1 is listed twice", "list it once"]),
    ({"seeds": []}, ["seeds: the list is empty", "at least one"]),
    ({"seeds": None}, ["seeds: None is not a list", "write one such as"]),
    ({"targets": ["cldr_kind", "cldr_kind"]}, ["targets: 'cldr_kind' is listed twice"]),
    ({"intermediates": ["cldr_qa", "cldr_qa"]}, ["intermediates: 'cldr_qa' is listed twice"]),
    ({"languages": ["de", "sw", "de"]}, ["languages: 'de' is listed twice"]),
    ({"targets": []}, ["targets: the list is empty", "at least one"]),
    ({"training": {"dropout": 1}}, ["training.dropout: 1 is not right", "less than 1"]),
    ({"training": {"weight_decay": -0.1}}, ["training.weight_decay: -0.1 is not right", "greater than or equal to 0"]),
    ({"training": {"threads": "2"}}, ["training.threads: '2' is not a number", "without quotes"]),
    ({"training": {"threads": 0}}, ["training.threads: 0 is not right", "greater than or equal to 1"]),
    ({"training": {"precision": "fp16"}}, ["training.precision: 'fp16' is not right", "'fp32'"]),
    ({"training": [1]}, ["training: [1] is not right", "dictionary|mapping"]),
    ({"trainable": {"method": "adapter"}}, ["trainable.method: 'adapter' is not right", "'lora'"]),
    ({"trainable": {"rank": 2.5}}, ["trainable.rank: 2.5 is not right", "integer"]),
    ({"contrasts": {"confidence": 95}}, ["contrasts.confidence: 95 is not right", "less than 1"]),
    ({"contrasts": {"low_below": 30}}, ["contrasts: low_below (30) is above high_from (20)", "swap them"]),
    ({"contrasts": {"resource": "cc-100"}}, ["contrasts.resource: 'cc-100' is not a resource measure", "'cc100'?"]),
    ({"contrasts": {"resource": "size"}}, ["contrasts.resource: 'size' is not", "give a .csv file"]),
    ({"contrasts": {"resource": "my.csv"}}, ["contrasts: the resource table my.csv has no bounds", "set low_below"]),
    ({"contrasts": {"resource": "joshi", "low_below": 5}}, ["contrasts: low_below (5) is above high_from (4)"]),
    ({"contrasts": {"low_below": 0}}, ["contrasts.low_below: 0 is not right", "greater than 0"]),
    ({"contrasts": {"smallest_effect": 0}}, ["contrasts.smallest_effect: 0 is not right", "greater than 0"]),
    ({"contrasts": {"bootstrap_draws": 10}}, ["contrasts.bootstrap_draws: 10 is not right", "equal to 100"]),
    ({"contrasts": {"pretraining": "bert"}}, ["contrasts.pretraining: 'bert' is not right", "'mbert'"]),
    ({"encoder": {"source": "disk"}}, ["encoder: needs", "`source: packaged` or `source: hub`"]),
    ({"encoder": {}}, ["encoder: needs", "`source: packaged` or `source: hub`"]),
    ({"encoder": {"source": "hub"}}, ["encoder.id: is missing", "add it"]),
    ({"encoder": {"source": "hub", "id": "../../etc"}}, ["encoder.id: '../../etc' does not match"]),
    ({"encoder": {"source": "hub", "id": "a/b", "revision": "-x"}}, ["encoder.revision: '-x' does not match"]),
    (
        {"recipes": {"cldr_choice": {"steps": 3}}},
        ["recipes.cldr_choice: 'cldr_choice' is not in this study", "cldr_qa"],
    ),
    ({"recipes": {"cldr_retrieval": {"steps": 3}}}, ["recipes.cldr_retrieval", "evaluated without training", "remove"]),
    ({"recipes": {"cldr_kind": {"steps": 10**9}}}, ["recipes.cldr_kind.steps: 1000000000", "less than or equal to"]),
    ({"recipes": {"cldr_kind": {"learning_rate": 0}}}, ["recipes.cldr_kind.learning_rate: 0", "greater than 0"]),
    *[
        ({"study": name}, ["study: ", "does not match|valid string"])
        for name in ("../mini", "a/b", "/mini", "", ".", "Mini", "a b", "mini\n", "-mini", "x" * 65, "a\u0661", 3, None)
    ],
]


@pytest.mark.parametrize(("change", "expected"), BAD, ids=[str(change)[:50] for change, _ in BAD])
def test_each_mistake_is_one_sentence_with_key_and_remedy(change, expected):
    message = refusal({**GOOD, **change})
    for part in expected:
        assert any(choice in message for choice in part.split("|")), message


@pytest.mark.parametrize("key", ["study", "intermediates", "budgets", "seeds", "targets"])
def test_a_missing_key_is_named(key):
    message = refusal({name: value for name, value in GOOD.items() if name != key})
    assert message == f"{key}: is missing; add it (config/README.md describes every setting)"


def test_more_than_one_mistake_is_counted():
    assert refusal({**GOOD, "seed": 1, "budget": 2}).endswith("(and 1 more)")


# --- Files ---


def refused_file(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_study(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("study: a\nseeds: [1]\nstudy: b\n", ", line 3: is not valid YAML (key 'study' is given twice); correct that"),
        ("training:\n  clip: 1\n  clip: 2\n", ", line 3: is not valid YAML (key 'clip' is given twice)"),
        ("study: [1\n", ", line 2: is not valid YAML (expected ',' or ']'"),
        ("study: a\n\tseeds: [1]\n", ", line 2: is not valid YAML"),
        ("study: !!python/object/apply:os.system ['true']\n", ", line 1: is not valid YAML (could not determine"),
        ("? [1, 2]\n: 3\n", ", line 1: is not valid YAML (a key is a list or mapping)"),
        ("", ": holds no settings; start from config/config.yaml"),
        ("- a\n- b\n", ": holds no settings; start from config/config.yaml"),
        ("just text\n", ": holds no settings"),
        ("a: 2026-13-45\n", ": is not valid YAML (month must be in"),
        ("a: " + "9" * 5000, ": is not valid YAML (Exceeds the limit"),
        ("a: " + "[" * 3000, ": is not valid YAML (maximum recursion"),
    ],
    ids=lambda value: value[:30],
)
def test_files_that_are_not_studies(tmp_path, text, expected):
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    assert refused_file(path).startswith(expected), refused_file(path)


def test_files_that_cannot_be_read(tmp_path):
    assert refused_file(tmp_path / "none.yaml") == (
        ": there is no such study file; give the path of a YAML file such as config/config.yaml"
    )
    assert ": cannot be read (" in refused_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"study: caf\xe9\n")
    assert "give a UTF-8 YAML file" in refused_file(tmp_path / "latin.yaml")


def test_a_template_with_python_in_it_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("__use_yte__: true\nstudy: ?open('made', 'w').name\n", encoding="utf-8")
    assert refused_file(path).startswith(": __use_yte__: makes Snakemake evaluate parts of this file as Python; remove")
    assert not Path("made").exists()


def test_anchors_and_merge_keys_are_yaml_too(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\n", encoding="utf-8")
    assert read_yaml(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


# --- Anything at all ---


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from(["all", "packaged", "hub", "none", "cldr_kind", "cldr_qa", "de", "en", "ht", 10**400, -(10**400)])
)
KEYS = st.sampled_from(
    [*Study.model_fields, "source", "id", "method", "rank", "steps", "cldr_kind", "cldr_retrieval", "warmup", "root"]
) | (st.text(max_size=6) | st.integers() | st.none() | st.booleans() | st.floats() | st.dates())
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


def outcome(attempt: Callable[[], Any]) -> Any:
    """What an attempt gives, or the sentence of its `UserError`; any other exception is the test's failure."""
    try:
        return attempt()
    except UserError as error:
        return str(error)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(KEYS, ANYTHING, max_size=6), st.booleans())
@example({"recipes": {"hub": {"x": 1}}}, True)
@example({"encoder": {"source": "hub", "id": 3, "\u2028": 1}}, True)
@example({"a\nb": 1}, True)
def test_any_structure_is_a_study_or_one_sentence(content, on_top_of_a_good_one):
    settings = {**GOOD, **content} if on_top_of_a_good_one else content
    found = outcome(lambda: Grid(parse_study(settings, "my.yaml"), "my.yaml").study)
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        assert found.startswith("my.yaml: ")
    else:
        assert isinstance(found, Study)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | ANYTHING.map(lambda value: yaml.safe_dump(value, allow_unicode=True)))
@example("&a [*a]")
@example("study: &a [*a]")
@example("&a {b: *a}")
@example("? &a [*a]\n: 1")
@example("{[1]: 2}")
@example("a: !!binary x")
@example("!!set {a, a}")
@example("<<: 3")
@example("1: !!timestamp x")
@example("=: 1")
@example("a: !!int ''")
@example("a: !!bool x")
@example("a: !!float ''")
@example("a: !!omap x")
def test_any_text_is_a_study_or_one_sentence(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = outcome(lambda: load_study(path))
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        assert found.startswith(str(path))


# One or two changes to a good study, most of which it takes: what comes after the study file is reached, too.
PLACES = st.text(max_size=12) | st.sampled_from(
    ["/", "..", ".", "\0", "a\nb", "x" * 5000, "y/" * 400, "no/such/folder", "ä.csv"]
)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "study": st.sampled_from(["a-b_c", "mini2", "../x", "/tmp/x", "a\nb", "x;y", "$(id)", "a b", ".", "é"]),
    "intermediates": st.lists(st.sampled_from(["cldr_pairs", "cldr_qa", "cldr_choice"]), min_size=1, max_size=2),
    "budgets": st.lists(
        st.sampled_from([0.25, 1, 2, 4, 1e9, {"steps": 30}, {"epochs": 0.1}, {"examples": 64}]), min_size=1, max_size=3
    ),
    "seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3),
    "targets": st.lists(st.sampled_from(["cldr_kind", "cldr_retrieval", "cldr_entities"]), min_size=1, max_size=2),
    "languages": st.sampled_from(["all", ["de", "sw"], ["en"], ["xx"], []]),
    "schedule": st.sampled_from(["independent", "trunk"]),
    "controls": st.lists(st.sampled_from(["extra_target", "shuffled_labels"]), max_size=2),
    "cross": st.fixed_dictionaries({}, optional={"batch_size": st.lists(st.integers(1, 64), max_size=2)}),
    "trainable": st.fixed_dictionaries({}, optional={"rank": st.integers(-1, 64), "layers": st.integers(-1, 13)}),
    "contrasts": st.fixed_dictionaries(
        {}, optional={"resource": PLACES | st.sampled_from(["cc100", "joshi"]), "low_below": st.floats(-1, 3)}
    ),
    "data": st.fixed_dictionaries(
        {}, optional={"root": PLACES, "folders": st.dictionaries(PLACES, PLACES, max_size=1)}
    ),
    "translated": st.dictionaries(st.sampled_from(["cldr_pairs", "cldr_qa"]), PLACES, max_size=1),
}
MOSTLY_RIGHT = (
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=2)
    .flatmap(lambda keys: st.fixed_dictionaries({key: CHANGES[key] for key in keys}))
    .map(lambda changes: {**GOOD, **changes})
)
PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
PLANNED: list[bool] = []


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "a\nb", "x;y", "$(id)", "a b", ".", "..", "", "-x", "`id`"])
@pytest.mark.parametrize("place", ["study", "own task", "intermediate", "target", "language", "own task's language"])
def test_no_name_leads_out_of_the_results_or_into_a_shell(name, place):
    own = {
        "family": "classification",
        "labels": ["a", "b"],
        "languages": ["de", "en"],
        "test": {"repository": "my-lab/topics", "columns": {"text_a": "text", "label": "label"}},
        "recipe": {"steps": 10, "batch_size": 4, "learning_rate": 1e-3, "max_length": 64},
    }
    settings = {
        "study": {"study": name},
        "own task": {"tasks": {name: own}},
        "intermediate": {"intermediates": [name]},
        "target": {"targets": [name]},
        "language": {"languages": ["de", name]},
        "own task's language": {"tasks": {"mine": {**own, "languages": ["de", name]}}, "targets": ["mine"]},
    }
    said = outcome(lambda: Grid(parse_study({**GOOD, **settings[place]}, "my.yaml"), "my.yaml"))
    assert isinstance(said, str)
    assert said.startswith("my.yaml: ")
    assert len(said.splitlines()) == 1


@settings(max_examples=500, deadline=None)
@given(MOSTLY_RIGHT)
@example({**GOOD, "contrasts": {"resource": "\0.csv"}})
@example({**GOOD, "data": {"root": "x" * 5000}})
@example({**GOOD, "data": {"root": "a\nb"}})
@example({**GOOD, "translated": {"cldr_qa": "a\nb"}})
def test_what_looks_like_a_study_is_planned_or_one_sentence(content):
    def planned() -> Plan:
        study = parse_study(content, "my.yaml")
        check_paths(study, "my.yaml")
        grid = Grid(study, "my.yaml")
        study_levels(study, LANGUAGES)
        plan_specification(grid)
        for cell in grid.cells[:3]:
            assert all(PATH_PART.fullmatch(value) for value in cell.wildcards.values())
        assert PATH_PART.fullmatch(study.study)
        return make_plan(grid, Path("no/results"), 2, None)

    found = outcome(planned)
    PLANNED.append(not isinstance(found, str))
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        assert not [character for character in found if not character.isprintable()]


def test_some_of_them_are_planned():
    if not PLANNED:
        pytest.skip("the test before this one was not run")
    assert len(PLANNED) >= 500
    assert 50 < sum(PLANNED) < len(PLANNED) - 50


# --- The command ---


def test_check_says_how_large_the_default_study_is(capsys):
    assert main(["check", str(ROOT / "config" / "config.yaml")]) == 0
    assert "18 intermediate runs, 42 target runs, 63 cells" in capsys.readouterr().out


def test_check_says_in_a_sentence_what_a_pilot_cannot_say(tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "seeds": [1], "languages": ["de"]}), encoding="utf-8")
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        f"{path}: with 1 seed there are estimates but no intervals or p-values; list 3 seeds or more",
        f"{path}: no scored language is low-resource, so low - high is not identified; add one to languages",
    ]


def test_check_exits_with_one_and_the_sentence_without_a_traceback(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "seed": 1}), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "xlift.cli", "check", str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr == f"error: {path}: seed: is not a setting; did you mean 'seeds'?\n"
