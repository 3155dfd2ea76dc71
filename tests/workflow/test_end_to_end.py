"""Tiny studies through the whole workflow to the page."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from harness import FEW_STEPS, Finished, Workspace, tiny_study

from xlift.artifacts import MANIFEST, sha256_of
from xlift.metrics import score_predictions

LANGUAGES = ["af", "de", "en", "fr", "sw"]
METRICS = {
    "cldr_retrieval": ["accuracy_at_1"],
    "cldr_kind": ["accuracy"],
    "cldr_entities": ["span_f1", "token_accuracy"],
}
RUNS = [("none", 0.0), ("cldr_choice", 1.0), ("cldr_qa", 1.0)]
KEYS = ["target", "intermediate", "budget", "seed", "language", "metric"]


def expected_keys() -> set[tuple]:
    """Keys of the scores that the tiny study has; English is not searched in English."""
    return {
        (target, task, budget, 1, language, metric)
        for target, metrics in METRICS.items()
        for (task, budget), metric, language in product(RUNS, metrics, LANGUAGES)
        if not (target == "cldr_retrieval" and language == "en")
    }


@pytest.fixture(scope="module")
def tables(finished: Finished) -> dict[str, pl.DataFrame]:
    """The study's tables by name."""
    root = finished.workspace.results()
    return {name: pl.read_parquet(root / f"{name}.parquet") for name in ("scores", "gains", "contrasts", "runs")}


def test_it_ends_in_time(finished: Finished) -> None:
    print(f"tiny study: {sum(finished.ended.jobs.values())} jobs, {finished.ended.seconds:.0f} s")
    assert finished.ended.jobs["predict_cell"] == 9


def test_scores_have_exactly_the_planned_rows(tables: dict[str, pl.DataFrame]) -> None:
    scores = tables["scores"]
    assert scores.height == len(expected_keys())
    assert set(scores.select(KEYS).rows()) == expected_keys()
    assert scores["study"].unique().to_list() == ["tiny"]
    assert scores["n"].min() > 0
    assert scores["score"].null_count() == 0
    assert scores["score"].is_between(0, 100).all()
    primary = scores.filter("is_primary").select("target", "metric").unique().sort("target").rows()
    assert primary == sorted((target, metrics[0]) for target, metrics in METRICS.items())


def test_realised_steps_are_the_planned_ones(tables: dict[str, pl.DataFrame]) -> None:
    steps, size = FEW_STEPS["steps"], FEW_STEPS["batch_size"]
    trained = pl.col("intermediate") != "none"
    for wanted, rows in ((steps, tables["scores"].filter(trained)), (0, tables["scores"].filter(~trained))):
        assert rows["steps"].unique().to_list() == [wanted]
        assert rows["examples"].unique().to_list() == [wanted * size]
    runs = tables["runs"]
    assert runs["kind"].value_counts().sort("kind").rows() == [("intermediate", 2), ("target", 6)]
    assert runs["steps"].unique().to_list() == [steps]
    assert runs["examples"].unique().to_list() == [steps * size]
    assert (runs["tokens"] <= runs["padded_tokens"]).all()
    assert (runs["seconds"] > 0).all()


def test_gains_are_differences_from_the_baseline(tables: dict[str, pl.DataFrame]) -> None:
    scores, gains = tables["scores"], tables["gains"]
    assert set(gains.select(KEYS).rows()) == {key for key in expected_keys() if key[1] != "none"}
    baseline = {
        (target, seed, language, metric): score
        for target, task, seed, language, metric, score in scores.select(
            "target", "intermediate", "seed", "language", "metric", "score"
        ).rows()
        if task == "none"
    }
    for row in gains.iter_rows(named=True):
        base = baseline[row["target"], row["seed"], row["language"], row["metric"]]
        assert row["baseline_score"] == base
        assert row["gain"] == pytest.approx(row["score"] - base)


def test_contrasts_claim_nothing_from_one_seed(tables: dict[str, pl.DataFrame]) -> None:
    contrasts = tables["contrasts"]
    assert contrasts.schema == pl.Schema(
        {
            **dict.fromkeys(("estimand", "scope", "scale", "method"), pl.String),
            **dict.fromkeys(("estimate", "se", "ci_low", "ci_high", "p", "p_adjusted"), pl.Float64),
            **dict.fromkeys(("n_languages", "n_runs"), pl.Int64),
            "note": pl.String,
        }
    )
    assert contrasts.height > 0
    assert contrasts["p"].null_count() == contrasts.height
    assert contrasts["p_adjusted"].null_count() == contrasts.height
    assert contrasts["estimate"].drop_nulls().len() > 0


def test_page(finished: Finished) -> None:
    page = (finished.workspace.results() / "report" / "index.html").read_text(encoding="utf-8")
    assert "tiny" in page
    for name in (*METRICS, "cldr_choice", "cldr_qa"):
        assert name in page


def test_manifests_vouch_for_their_files(finished: Finished) -> None:
    root = finished.workspace.results()
    folders = sorted(path.parent for path in root.rglob(MANIFEST))
    assert len(folders) == 1 + 5 + 2 + 6
    for folder in folders:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        assert {path.name for path in folder.iterdir()} == {MANIFEST, *files}
        for name, facts in files.items():
            assert sha256_of(folder / name) == facts["sha256"]
            assert (folder / name).stat().st_size == facts["bytes"]
    for path in sorted((root / "data").glob("*.json")):
        assert sha256_of(path.with_suffix(".parquet")) == json.loads(path.read_text(encoding="utf-8"))["sha256"]


def test_nothing_temporary_is_left(finished: Finished) -> None:
    names = [path.name for path in finished.workspace.results().rglob("*")]
    assert [name for name in names if name.startswith(".") or name.endswith(".tmp")] == []


def test_second_run_does_nothing(finished: Finished) -> None:
    before = finished.workspace.state()
    ended = finished.workspace.run()
    assert ended.code == 0
    assert "Nothing to be done" in ended.output
    assert ended.jobs == {}
    assert finished.workspace.state() == before


def test_answer(finished: Finished) -> None:
    said = finished.workspace.xlift("answer", "study.yaml")
    assert said.code == 0, said.output
    page = finished.workspace.results() / "report" / "index.html"
    assert said.output.rstrip().endswith(f"The page: {page.as_uri()}")
    table = said.output.split("\n\n")[1].splitlines()
    assert table[0].startswith("contrast (points)")
    assert 2 <= len(table) <= 10


def test_answer_before_the_study_ran(workspace: Workspace) -> None:
    said = workspace.xlift("answer")
    assert said.code == 1
    assert said.output.startswith("error: results/mini/report/index.html: is not there yet; run `snakemake")


def test_full_fine_tuning_gives_the_same_bytes_twice(finished: Finished, tmp_path: Path) -> None:
    settings = tiny_study(
        Path(finished.settings["data"]["root"]),
        trainable={"method": "full", "freeze_word_embeddings": False},
    )
    predictions = "predictions/cldr_kind/cldr_choice/x1/seed1.parquet"
    weights = [
        f"{run}/x1/seed1/weights.safetensors" for run in ("intermediate/cldr_choice", "target/cldr_kind/cldr_choice")
    ]
    roots = []
    for name in ("first", "second"):
        workspace = finished.workspace.copy(tmp_path / name)
        workspace.write_study(settings)
        ended = workspace.run(f"results/tiny/{predictions}")
        assert ended.code == 0, ended.output
        assert ended.jobs == {"train_intermediate": 1, "train_target": 1, "predict_cell": 1}
        roots.append(workspace.results())
    adapters, first, second = (
        [sha256_of(root / name) for name in (predictions, *weights)] for root in (finished.workspace.results(), *roots)
    )
    assert first == second
    assert len({*adapters[1:], *first[1:]}) == 4
    sizes = [(root / weights[0]).stat().st_size for root in (finished.workspace.results(), roots[0])]
    assert sizes[1] > 5 * sizes[0]


def test_packaged_encoder(workspace: Workspace) -> None:
    """The real encoder finds names across languages without any training."""
    workspace.write_study(
        {
            "study": "real",
            "encoder": {"source": "packaged"},
            "intermediates": ["cldr_pairs"],
            "budgets": [1],
            "seeds": [1],
            "targets": ["cldr_retrieval"],
            "languages": ["de", "my"],
        }
    )
    predictions = "results/real/predictions/cldr_retrieval/none/x0/seed1.parquet"
    ended = workspace.run(predictions)
    assert ended.code == 0, ended.output
    shutil.rmtree(workspace.results("real") / "encoder")  # 235 MB, which pytest would keep
    scores = score_predictions(pl.read_parquet(workspace.folder / predictions), "accuracy_at_1")
    found = dict(scores.select("language", "score").rows())
    # The pool holds over 300 names: chance is below a third of a point.
    assert found["de"] > 60
    assert found["my"] < found["de"] - 20
