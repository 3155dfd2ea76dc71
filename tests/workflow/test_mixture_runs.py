"""A mixture, a translated and a co-trained arm through the whole workflow, and what a change to a part repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from harness import TRAINED, Finished, Workspace, tiny_study
from safetensors import safe_open

PARTS = ["cldr_choice", "cldr_pairs", "cldr_qa"]
MIXED: dict[str, Any] = {
    "intermediates": ["cldr_pairs", "mixture"],
    "mixture": {"tasks": PARTS, "cap": 1000},
    "recipes": {"mixture": {"steps": 12, "batch_size": 4}},
    "translated": {"cldr_pairs": "translations"},
    "mlm": {"texts": "texts", "tasks": ["cldr_pairs"], "languages": ["de", "sw"], "max_length": 32},
    "targets": ["cldr_kind"],
}


def write_translations(folder: Path) -> None:
    """Made-up rows in the columns of a prepared task."""
    labels = ("listed", "other_kind", "same_kind")
    rows = [
        {
            "split": split,
            "language": code,
            "id": str(i),
            "text_a": f"ein {i}",
            "text_b": f"zwei {i}",
            "label": labels[i % 3],
        }
        for split, size in (("train", 12), ("dev", 6))
        for code in ("de", "en", "sw")
        for i in range(size)
    ]
    folder.mkdir()
    pl.DataFrame(rows).write_parquet(folder / "all.parquet")


def write_texts(folder: Path) -> None:
    """Made-up passages in two languages, one of them with some that are longer than a sequence."""
    folder.mkdir()
    lines = [" ".join(f"{word}{row}" for word in ("rot", "blau", "gelb") * (1 + row % 9)) for row in range(12)]
    (folder / "de.txt").write_text("\n".join(lines), encoding="utf-8")
    pl.DataFrame({"text": [f"nyekundu {row} buluu" for row in range(10)]}).write_parquet(folder / "sw.parquet")


@pytest.fixture(scope="module")
def mixed(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study with a mixture of three families."""
    workspace = Workspace(tmp_path_factory.mktemp("mixed") / "work")
    write_translations(workspace.folder / "translations")
    write_texts(workspace.folder / "texts")
    study = tiny_study(hub, **MIXED)
    study["recipes"] |= MIXED["recipes"]
    workspace.write_study(study)
    ended = workspace.run()
    assert ended.code == 0, ended.output
    return Finished(workspace, study, ended)


def test_a_mixture_runs_to_the_end(mixed: Finished) -> None:
    jobs = mixed.ended.jobs
    # Three parts, translations, texts and the target; a plain, a translated, a co-trained and a mixed run; a baseline.
    assert (jobs["prepare_data"], jobs["encode_task"]) == (6, 6)
    assert (jobs["train_intermediate"], jobs["train_target"], jobs["predict_cell"]) == (4, 5, 5)
    run = mixed.workspace.results() / "intermediate/mixture/x1/seed1"
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert [part["task"] for part in manifest["parts"]] == PARTS
    assert sum(part["steps"] for part in manifest["parts"]) == manifest["steps"] == 12
    assert manifest["examples"] == 48
    assert manifest["dev"]["parts"].keys() == set(PARTS)
    with safe_open(run / "weights.safetensors", framework="pt") as stored:
        heads = {name.split(".")[1] for name in stored.keys() if name.startswith("head.")}  # noqa: SIM118
    assert heads == set(PARTS)
    scores = pl.read_parquet(mixed.workspace.results() / "scores.parquet")
    rows = scores.select("intermediate", "arm", "steps").unique().sort("intermediate", "arm").rows()
    assert rows == [
        ("cldr_pairs", "main", 4),
        ("cldr_pairs", "mlm", 6),
        ("cldr_pairs", "translated", 4),
        ("mixture", "main", 12),
        ("none", "main", 0),
    ]
    runs = pl.read_parquet(mixed.workspace.results() / "runs.parquet")
    assert runs.filter(pl.col("intermediate") == "mixture")["dev_metric"].unique().sort().to_list() == [
        "accuracy",
        "mean over parts",
    ]
    assert mixed.workspace.plan() == {}
    assert (mixed.workspace.results() / "report/index.html").exists()


def test_a_co_trained_run_tells_its_parts(mixed: Finished) -> None:
    run = mixed.workspace.results() / "intermediate/cldr_pairs.mlm/x1/seed1"
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert [(part["task"], part["steps"], part["examples"]) for part in manifest["parts"]] == [
        ("cldr_pairs", 4, 16),
        ("mlm", 2, 8),
    ]
    assert sum(part["flops"] for part in manifest["parts"]) == pytest.approx(manifest["flops"])
    prepared = json.loads((mixed.workspace.results() / "data/mlm.json").read_text(encoding="utf-8"))
    assert prepared["rows"] == {"train/de": 12, "train/sw": 10}
    assert len(prepared["sha256"]) == 64
    contrasts = pl.read_parquet(mixed.workspace.results() / "contrasts.parquet")
    assert "arm=mlm" in set(contrasts["scope"])


def test_the_plan_counts_what_the_workflow_runs(mixed: Finished) -> None:
    planned = mixed.workspace.xlift("plan", "study.yaml", "--json")
    assert planned.code == 0, planned.output
    found = json.loads(planned.output)
    assert {rule: count for rule, count in found["jobs"].items() if count} == mixed.ended.jobs
    assert found["remaining"]["jobs"] == 0
    assert found["total"]["steps"] == 12 + 2 * 4 + 6 + 5 * 4


def test_a_cap_repeats_the_mixture_alone(mixed: Finished, tmp_path: Path) -> None:
    workspace = mixed.workspace.copy(tmp_path / "work")
    workspace.write_study({**mixed.settings, "mixture": {"tasks": PARTS, "cap": 999}})
    assert workspace.plan() == {
        "train_intermediate": 1,
        "train_target": 1,
        "predict_cell": 1,
        **TRAINED,
    }


def test_data_made_again_repeats_no_run(mixed: Finished, tmp_path: Path) -> None:
    workspace = mixed.workspace.copy(tmp_path / "work")
    for task in PARTS:
        (workspace.results() / f"data/{task}.parquet").touch()
        (workspace.results() / f"encoded/{task}/length64/manifest.json").unlink(missing_ok=True)
    planned = workspace.plan()
    assert "train_intermediate" not in planned
    assert "train_target" not in planned
