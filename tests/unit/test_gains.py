"""Gains over the baseline: arithmetic by hand, what is refused, and what completeness reports."""

from __future__ import annotations

import polars as pl
import pytest

from xlift.contrasts.gains import GAIN_COLUMNS, completeness, compute_gains
from xlift.errors import UserError


def score_row(
    intermediate: str,
    budget: float,
    seed: int,
    language: str,
    score: float | None,
    metric: str = "accuracy",
    collapsed: bool = False,
) -> dict[str, object]:
    steps = int(100 * budget)
    return {
        "study": "tiny",
        "target": "xnli",
        "intermediate": intermediate,
        "arm": "main",
        "budget": budget,
        "seed": seed,
        "language": language,
        "metric": metric,
        "is_primary": metric == "accuracy",
        "score": score,
        "n": 50,
        "steps": steps,
        "examples": 32 * steps,
        "tokens": 1000 * steps,
        "padded_tokens": 1200 * steps,
        "flops": 1e9 * steps,
        "batch_size": 0 if intermediate == "none" else 32,
        "collapsed": collapsed,
        "shared_data": False,
    }


def hand_made() -> list[dict[str, object]]:
    return [
        score_row("none", 0.0, 1, "sw", 40.0),
        score_row("none", 0.0, 2, "sw", 42.0),
        score_row("none", 0.0, 1, "de", 70.0),
        score_row("none", 0.0, 1, "sw", 30.0, metric="f1"),
        score_row("mnli", 1.0, 1, "sw", 45.0),
        score_row("mnli", 1.0, 2, "sw", 41.5),
        score_row("mnli", 1.0, 1, "de", 70.5),
        score_row("mnli", 2.0, 1, "sw", 47.0),
        score_row("mnli", 1.0, 1, "sw", 36.0, metric="f1"),
    ]


def test_a_gain_is_the_score_minus_the_baseline_of_the_same_seed_language_and_metric() -> None:
    gains = compute_gains(pl.DataFrame(hand_made()))
    assert gains.columns == list(GAIN_COLUMNS)
    found = {
        (row["budget"], row["seed"], row["language"], row["metric"]): (row["gain"], row["baseline_score"])
        for row in gains.iter_rows(named=True)
    }
    assert found == {
        (1.0, 1, "sw", "accuracy"): (5.0, 40.0),
        (1.0, 2, "sw", "accuracy"): (-0.5, 42.0),
        (1.0, 1, "de", "accuracy"): (0.5, 70.0),
        (2.0, 1, "sw", "accuracy"): (7.0, 40.0),
        (1.0, 1, "sw", "f1"): (6.0, 30.0),
    }
    assert gains["intermediate"].unique().to_list() == ["mnli"]


def test_a_row_without_its_baseline_gives_no_gain() -> None:
    rows = [*hand_made(), score_row("mnli", 1.0, 2, "de", 71.0), score_row("mnli", 1.0, 3, "sw", 44.0)]
    gains = compute_gains(pl.DataFrame(rows))
    assert gains.height == 5
    assert not gains.filter((pl.col("language") == "de") & (pl.col("seed") == 2)).height


def test_a_gain_is_collapsed_when_either_of_its_runs_is() -> None:
    rows = hand_made()
    rows[1]["collapsed"] = True  # the baseline of seed 2
    rows[7]["collapsed"] = True  # budget 2
    collapsed = compute_gains(pl.DataFrame(rows)).filter("collapsed").select("budget", "seed")
    assert collapsed.rows() == [(1.0, 2), (2.0, 1)]


def test_the_order_of_the_rows_does_not_matter() -> None:
    scores = pl.DataFrame(hand_made())
    shuffled = scores.sample(fraction=1.0, shuffle=True, seed=5)
    assert compute_gains(shuffled).equals(compute_gains(scores))


@pytest.mark.parametrize("bad", [None, float("nan"), -0.1, 100.1])
def test_a_score_outside_0_to_100_is_refused_with_its_key(bad: float | None) -> None:
    rows = [*hand_made(), score_row("qqp", 1.0, 7, "th", bad)]
    with pytest.raises(UserError, match=r"intermediate=qqp.*seed=7.*language=th"):
        compute_gains(pl.DataFrame(rows))


def test_repeated_keys_are_refused_with_their_key() -> None:
    repeated = [*hand_made(), score_row("mnli", 2.0, 1, "sw", 47.0)]
    with pytest.raises(UserError, match=r"2 rows at .*intermediate=mnli, arm=main, budget=2.0, seed=1, language=sw"):
        compute_gains(pl.DataFrame(repeated))
    two_baselines = [*hand_made(), score_row("none", 1.0, 1, "de", 71.0)]
    with pytest.raises(UserError, match=r"baseline.*language=de, seed=1"):
        compute_gains(pl.DataFrame(two_baselines))


def test_every_arm_has_the_one_baseline() -> None:
    other = {**score_row("mnli", 1.0, 1, "sw", 44.0), "arm": "b128-sqrt"}
    gains = compute_gains(pl.DataFrame([*hand_made(), other])).filter(
        (pl.col("budget") == 1)
        & (pl.col("seed") == 1)
        & (pl.col("language") == "sw")
        & (pl.col("metric") == "accuracy")
    )
    assert gains.select("arm", "gain", "baseline_score").rows() == [("b128-sqrt", 4.0, 40.0), ("main", 5.0, 40.0)]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UserError, match="collapsed"):
        compute_gains(pl.DataFrame(hand_made()).drop("collapsed"))


def test_completeness_tells_what_is_there_and_what_has_its_baseline() -> None:
    rows = [*hand_made(), score_row("mnli", 1.0, 2, "de", 71.0)]  # its baseline is missing
    expected = pl.DataFrame(
        [("xnli", "none", "main", 0.0, 1), ("xnli", "none", "main", 0.0, 2), ("xnli", "none", "main", 0.0, 3)]
        + [("xnli", "mnli", "main", budget, seed) for budget in (2.0, 1.0) for seed in (1, 2)],
        schema=["target", "intermediate", "arm", "budget", "seed"],
        orient="row",
    )
    assert completeness(expected, pl.DataFrame(rows)).rows() == [
        ("xnli", "mnli", "main", 1.0, 1, True, 2, 2),
        ("xnli", "mnli", "main", 1.0, 2, True, 2, 1),
        ("xnli", "mnli", "main", 2.0, 1, True, 1, 1),
        ("xnli", "mnli", "main", 2.0, 2, False, 0, 0),
        ("xnli", "none", "main", 0.0, 1, True, 2, 2),
        ("xnli", "none", "main", 0.0, 2, True, 1, 1),
        ("xnli", "none", "main", 0.0, 3, False, 0, 0),
    ]
    with pytest.raises(UserError, match="intermediate=none"):
        completeness(pl.concat([expected, expected.head(1)]), pl.DataFrame(rows))
