"""The exported files, scored by a second evaluator of their layout: the numbers are xlift's own."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pytest

from mirror import ABSENT, HERE
from mirror import ROOT as MIRROR
from xlift import cli, export
from xlift.artifacts import publish_json, sealed, sha256_of
from xlift.errors import UserError
from xlift.export import LAYOUTS, Layout, export_predictions, layout_of
from xlift.grid import Grid
from xlift.metrics import score_predictions
from xlift.sources.hub import read_split
from xlift.study import load_study
from xlift.tables import publish_table, read_table
from xtreme_evaluator import evaluate

ROOT = Path(__file__).parents[2]
NAMES = {
    "accuracy": "accuracy",
    "accuracy_at_1": "accuracy",
    "bitext_f1": "f1",
    "map_at_20": "map@20",
    "mlqa_em": "exact_match",
    "mlqa_f1": "f1",
    "span_f1": "f1",
    "squad_em": "exact_match",
    "squad_f1": "f1",
    "xtreme_f1": "f1",
}
UPOS = ("NOUN", "VERB", "CCONJ", "SCONJ", "SYM", "X", "PUNCT", "ADJ")
IOB2 = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
WORDS = (
    "Der",
    "the",
    "Hund,",
    "3.5",
    "東京",
    "东京",
    "(1990)",
    "–",
    "ال",
    "الكتاب",
    "là",
    "a",
    "naïve",
    "O'Neil",
    "la",
)


def table(columns: dict[str, list]) -> pl.DataFrame:
    """Examples or predictions with typed lists."""
    lists = {name: pl.List(pl.String) for name in ("prediction", "gold", "tags", "tokens", "answers")}
    schema = {name: lists.get(name, pl.List(pl.Int64) if name == "answer_starts" else pl.String) for name in columns}
    return pl.DataFrame(columns, schema=schema)


def made_up(target: str, language: str, draw: random.Random, count: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Examples and predictions of a target in one language; ids sort otherwise than the rows."""
    ids = [f"{language}-{draw.randrange(10**6)}-{row}" for row in range(count)]
    common = {"split": ["test"] * count, "language": [language] * count, "id": ids}
    predicted: list[list[str]] = []
    if target in ("xnli", "pawsx"):
        labels = ("0", "1") if target == "pawsx" else ("entailment", "neutral", "contradiction")
        gold = [[draw.choice(labels)] for _ in ids]
        predicted = [[draw.choice(labels)] if draw.random() < 0.5 else right for right in gold]
        examples = table({**common, "text_a": ids, "label": [right[0] for right in gold]})
    elif target == "xcopa":
        gold = [[draw.choice("01")] for _ in ids]
        predicted = [[draw.choice("01")] if draw.random() < 0.5 else right for right in gold]
        examples = table({**common, "prompt": ids, "label": [right[0] for right in gold]})
    elif target in ("udpos", "panx"):
        tags = UPOS if target == "udpos" else IOB2
        gold = [[draw.choice(tags) for _ in range(draw.randrange(1, 9))] for _ in ids]
        predicted = [[draw.choice(tags) if draw.random() < 0.3 else tag for tag in right] for right in gold]
        examples = table({**common, "tokens": gold, "tags": gold})
    elif target in ("xquad", "mlqa", "tydiqa"):
        gold = [
            [" ".join(draw.choices(WORDS, k=draw.randrange(1, 5))) for _ in range(draw.randrange(1, 3))] for _ in ids
        ]
        choices = [
            ["", right[0], right[-1].upper(), f"{right[0]} {draw.choice(WORDS)}", draw.choice(WORDS)] for right in gold
        ]
        predicted = [[draw.choice(options)] for options in choices]
        contexts = [f"context {row // 4}" for row in range(count)]
        starts = [list(range(len(right))) for right in gold]
        examples = table({**common, "context": contexts, "question": ids, "answers": gold, "answer_starts": starts})
    else:
        documents = [f"d{draw.randrange(10**6)}-{row}" for row in range(count)]
        gold = [[documents[row]] for row in draw.sample(range(count), count)]
        predicted = [[right[0]] if draw.random() < 0.6 else [draw.choice(documents)] for right in gold]
        if target == "bucc2018":
            gold = [right if draw.random() < 0.7 else [] for right in gold]
            predicted = [found if draw.random() < 0.8 else [] for found in predicted]
        if target == "mewslix":  # twenty of sixty documents: the right one among the first eight, at any rank, or not
            predicted = [draw.sample(documents, 20) for _ in ids]
            for ranking, (right,) in zip(predicted, gold, strict=True):
                if right not in ranking and draw.random() < 0.6:
                    ranking[draw.randrange(8)] = right
        pool = [language] * count
        queries = table({**common, "role": ["query"] * count, "pool": pool, "gold": gold})
        rest = {**common, "id": documents, "role": ["document"] * count, "pool": pool, "gold": [[]] * count}
        examples = pl.concat([queries, table(rest)])
    columns = {"language": common["language"], "id": ids, "prediction": predicted, "gold": gold}
    return examples, table(columns).sort("language", "id")


def assert_same_scores(target: str, folder: Path, predictions: pl.DataFrame) -> None:
    layout = LAYOUTS[target]
    for metric in layout.metrics:
        for language, score in score_predictions(predictions, metric).select("language", "score").iter_rows():
            paths = [
                folder / side / layout.task / f"test-{language}.{layout.ending}" for side in ("predictions", "labels")
            ]
            found = evaluate(layout.task, *paths, language)[NAMES[metric]]
            assert f"{found:.2f}" == f"{score:.2f}", (metric, language)
            assert found == pytest.approx(score, abs=1e-9)


@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
@pytest.mark.parametrize("target", sorted(LAYOUTS))
def test_a_second_evaluator_gives_our_scores(target, tmp_path):
    draw = random.Random(target)
    languages = ("ar", "de", "en", "es", "vi", "zh") if target == "mlqa" else ("de", "zh")
    parts = [made_up(target, language, draw) for language in languages]
    examples, predictions = (pl.concat([part[place] for part in parts]) for place in (0, 1))
    if target == "udpos":
        # That number depends on the order of sentences, and cells are scored in the order of their ids.
        examples = examples.sort("language", "id")
    export_predictions(LAYOUTS[target], predictions, examples, tmp_path, {"fingerprint": "x"})
    assert_same_scores(target, tmp_path, predictions)
    scores = json.loads((tmp_path / "predictions" / LAYOUTS[target].task / "manifest.json").read_text())["scores"]
    means = [sum(by_language.values()) / len(by_language) for by_language in scores.values()]
    assert all(10 < mean < 95 for mean in means)  # so that agreement says something


def written(tmp_path: Path, side: str, task: str, name: str) -> str:
    return (tmp_path / side / task / name).read_text(encoding="utf-8")


def test_files_by_hand(tmp_path):
    """Each form on a few rows whose ids sort otherwise than the data set's rows."""
    keys = {"split": ["test", "test", "train"], "language": ["sw", "sw", "en"], "id": ["b", "a", "c"]}
    examples = table({**keys, "tags": [["X", "Y"], ["Z"], ["Z"]]})
    scored = {"language": ["sw", "sw"], "id": ["a", "b"]}
    tags = table({**scored, "prediction": [["O"], ["B-PER", "I-PER"]], "gold": [["O"], ["B-PER", "O"]]})
    export_predictions(LAYOUTS["panx"], tags, examples, tmp_path, {})
    assert written(tmp_path, "predictions", "panx", "test-sw.tsv") == "B-PER\nI-PER\n\nO\n"
    assert written(tmp_path, "labels", "panx", "test-sw.tsv") == "B-PER\nO\n\nO\n"

    labels = table({**scored, "prediction": [["1"], ["0"]], "gold": [["1"], ["1"]]})
    export_predictions(LAYOUTS["pawsx"], labels, examples, tmp_path, {})
    assert written(tmp_path, "predictions", "pawsx", "test-sw.tsv") == "0\n1\n"
    assert written(tmp_path, "labels", "pawsx", "test-sw.tsv") == "1\n1\n"

    pool = {"role": ["query"] * 3, "pool": ["sw", "sw", "en"], "gold": [["e"], ["d"], ["f"]]}
    documents = {"split": ["test"] * 3, "language": ["sw"] * 3, "id": ["e", "d", "g"], "role": ["document"] * 3}
    both = pl.concat([table({**keys, **pool}), table({**documents, "pool": ["sw"] * 3, "gold": [[]] * 3})])
    found = table({**scored, "prediction": [["g", "d"], ["e"]], "gold": [["d"], ["e"]]})
    export_predictions(LAYOUTS["tatoeba_direct"], found, both, tmp_path, {})
    assert written(tmp_path, "predictions", "tatoeba", "test-sw.tsv") == "0\n2\n"
    assert written(tmp_path, "labels", "tatoeba", "test-sw.tsv") == "0\n1\n"

    text = {"context": ["k", "k", "l"], "question": ["q", "r", "s"], "answers": [["x"], ["y", "z"], ["w"]]}
    asked = table({**keys, **text, "answer_starts": [[4], [0, 2], [0]]})
    answers = table({**scored, "prediction": [["ก"], [""]], "gold": [["y", "z"], ["x"]]})
    export_predictions(LAYOUTS["xquad"], answers, asked, tmp_path, {})
    assert json.loads(written(tmp_path, "predictions", "xquad", "test-sw.json")) == {"b": "", "a": "ก"}
    right = [{"text": "y", "answer_start": 0}, {"text": "z", "answer_start": 2}]
    questions = [
        {"id": "b", "question": "q", "answers": [{"text": "x", "answer_start": 4}]},
        {"id": "a", "question": "r", "answers": right},
    ]
    squad = json.loads(written(tmp_path, "labels", "xquad", "test-sw.json"))
    assert squad["data"][0]["paragraphs"] == [{"context": "k", "qas": questions}]


def test_choices_by_hand(tmp_path):
    keys = {"split": ["test", "test"], "language": ["qu", "qu"], "id": ["b", "a"]}
    found = table({"language": ["qu", "qu"], "id": ["a", "b"], "prediction": [["1"], ["0"]], "gold": [["1"], ["1"]]})
    export_predictions(LAYOUTS["xcopa"], found, table({**keys, "label": ["1", "1"]}), tmp_path, {})
    assert written(tmp_path, "predictions", "xcopa", "test-qu.jsonl") == '{"label": 0}\n{"label": 1}\n'
    assert written(tmp_path, "labels", "xcopa", "test-qu.jsonl") == '{"label": 1}\n{"label": 1}\n'


def test_rankings_by_hand(tmp_path):
    """Ranks 2 and, beyond the twenty, none: the mean of 1/2 and 0."""
    rows = table({"id": ["m2", "m1"], "prediction": [["Q3", "Q7"], ["Q7", "Q3"]], "gold": [["Q7"], ["Q1"]]})
    predictions, labels = map(json.loads, LAYOUTS["mewslix"].files(rows, {}))
    assert predictions == {"m2": ["Q3", "Q7"], "m1": ["Q7", "Q3"]}
    assert labels == {"m2": ["Q7"], "m1": ["Q1"]}
    paths = tmp_path / "predictions.json", tmp_path / "labels.json"
    for path, facts in zip(paths, (predictions, labels), strict=True):
        path.write_text(json.dumps(facts))
    assert evaluate("mewslix", *paths, "ta") == {"map@20": 25.0}
    assert layout_of("mewslix").apart == "mewslix"
    several = rows.with_columns(gold=pl.concat_list("gold", "prediction"))
    with pytest.raises(UserError, match="a query has several right documents"):
        LAYOUTS["mewslix"].files(several, {})


def test_pairs_by_hand():
    rows = table({"id": ["s2", "s1", "s3"], "prediction": [["t1"], [], ["t9"]], "gold": [["t1"], ["t2"], []]})
    assert LAYOUTS["bucc2018"].files(rows, {}) == ("s2\tt1\ns3\tt9\n", "s2\tt1\ns1\tt2\n")


def test_a_language_that_is_no_longer_there_leaves_no_file(tmp_path):
    draw = random.Random(5)
    parts = [made_up("xnli", language, draw) for language in ("de", "sw")]
    both = [pl.concat([part[place] for part in parts]) for place in (1, 0)]
    export_predictions(LAYOUTS["xnli"], *both, tmp_path, {})
    folder = tmp_path / "labels" / "xnli"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "test-de.tsv", "test-sw.tsv"]
    export_predictions(LAYOUTS["xnli"], parts[0][1], parts[0][0], tmp_path, {})
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "test-de.tsv"]


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="lareqa: XTREME's public evaluation has no layout for it"):
        layout_of("lareqa")
    examples, predictions = made_up("xnli", "de", random.Random(1))
    with pytest.raises(UserError, match="59 predictions and 60 examples of which 59 are the same"):
        export_predictions(LAYOUTS["xnli"], predictions.head(59), examples, tmp_path, {})
    examples, predictions = made_up("tatoeba_direct", "de", random.Random(1))
    several = predictions.with_columns(gold=pl.concat_list("gold", "prediction"))
    with pytest.raises(UserError, match="a query has several right documents"):
        export_predictions(LAYOUTS["tatoeba_direct"], several, examples, tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The default study with made-up results for the cells of one target, which is laid out as panx is."""
    monkeypatch.setitem(export.LAYOUTS, "cldr_entities", Layout("panx", "tsv", LAYOUTS["panx"].files, ("span_f1",)))
    config = ROOT / "config" / "config.yaml"
    grid = Grid(load_study(config), str(config))
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results" / grid.study.study
    examples, predictions = made_up("panx", "de", random.Random(3))
    data = results / "data" / "cldr_entities.parquet"
    data.parent.mkdir(parents=True)
    examples.write_parquet(data)
    publish_json(data.with_suffix(".json"), sealed({"sha256": sha256_of(data)}))
    for cell in grid.cells:
        if cell.target == "cldr_entities":
            path = results / "predictions" / f"{export.path_of(cell)}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            publish_table(path, predictions, fingerprint=grid.stamp("predict", cell).fingerprint)
    return config, grid, results


def test_the_command_exports_one_cell_or_all_of_a_target(study, capsys):
    config, grid, results = study
    cells = [cell for cell in grid.cells if cell.target == "cldr_entities"]
    assert cli.main(["export", str(config), export.path_of(cells[1])]) == 0
    run = cells[1].wildcards
    folder = results / "export" / run["inter"] / run["budget"] / f"seed{run['seed']}"
    assert (folder / "predictions" / "panx" / "test-de.tsv").is_file()
    manifest = json.loads((folder / "labels" / "panx" / "manifest.json").read_text())
    assert (manifest["cell"], manifest["study"]) == (export.path_of(cells[1]), grid.study.study)
    printed = capsys.readouterr().out
    assert printed.startswith("--prediction_folder results/")
    assert printed.count("\n") == 1
    assert cli.main(["export", str(config), "cldr_entities"]) == 0
    assert capsys.readouterr().out.count("\n") == len(cells)
    assert len(list(results.glob("export/*/*/*/predictions/panx/manifest.json"))) == len(cells)


def test_the_command_refuses_in_one_sentence(study, capsys):
    config, grid, results = study
    other = next(target for target in sorted(grid.study.targets) if target != "cldr_entities")
    cell = next(cell for cell in grid.cells if cell.target == "cldr_entities")
    path = results / "predictions" / f"{export.path_of(cell)}.parquet"

    def refused(wanted: str, words: str) -> None:
        assert cli.main(["export", str(config), wanted]) == 1
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1

    refused(other, "XTREME's public evaluation has no layout for it")
    refused("xnlx", "is no target of this study; its targets are")
    refused("cldr_entities/none/none/seed99", "is no cell of this study")
    publish_table(path, read_table(path), fingerprint="another")
    refused("cldr_entities", "was made with other settings than this study's")
    path.unlink()
    refused(export.path_of(cell), "is not there yet; run the workflow first")
    assert not (results / "export").exists()


REAL = (
    ("panx", "unimelb-nlp/wikiann", "sw", "validation", "ner_tags"),
    ("udpos", "google/xtreme", "udpos.Tamil", "test", "pos_tags"),
)


@pytest.mark.skipif(not HERE, reason=ABSENT)
@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
@pytest.mark.parametrize(("target", "repository", "config", "rows", "column"), REAL)
def test_real_sentences(target, repository, config, rows, column, tmp_path):
    """Real tags, a seventh of them another sentence's."""
    read = read_split(repository, config, rows, None, MIRROR)
    names, draw = read.class_names[column], random.Random(target)
    gold = [[names[tag] for tag in tags] for tags in read.frame[column]]
    predicted = [[draw.choice(names) if draw.random() < 1 / 7 else tag for tag in tags] for tags in gold]
    ids = [f"{row:07d}" for row in range(len(gold))]
    keys = {"language": ["sw"] * len(ids), "id": ids}
    examples = table({"split": ["test"] * len(ids), **keys, "tags": gold})
    predictions = table({**keys, "prediction": predicted, "gold": gold})
    export_predictions(LAYOUTS[target], predictions, examples, tmp_path, {})
    assert_same_scores(target, tmp_path, predictions)


@pytest.mark.skipif(not HERE, reason=ABSENT)
@pytest.mark.parametrize(
    ("target", "repository", "configs"),
    [
        ("tydiqa", "google-research-datasets/tydiqa", {"te": "secondary_task"}),
        ("mlqa", "facebook/mlqa", {code: f"mlqa.{code}.{code}" for code in ("ar", "de", "vi", "zh")}),
    ],
)
def test_real_questions(target, repository, configs, tmp_path):
    """Real answers, some cut short, made longer or another question's."""
    draw = random.Random(target)
    examples, predictions = [], []
    for language, config in configs.items():
        frame = read_split(repository, config, "validation", None, MIRROR).frame.head(300)
        gold = [answer["text"] for answer in frame["answers"]]
        words = [right[0].split() for right in gold]
        choices = [
            [r[0], " ".join(w[1:]), f"{r[0]}, der 3", draw.choice(gold)[0]] for r, w in zip(gold, words, strict=True)
        ]
        keys = {"language": [language] * frame.height, "id": frame["id"].to_list()}
        starts = [answer["answer_start"] for answer in frame["answers"]]
        text = {name: frame[name].to_list() for name in ("context", "question")}
        examples.append(
            table({"split": ["test"] * frame.height, **keys, **text, "answers": gold, "answer_starts": starts})
        )
        predictions.append(table({**keys, "prediction": [[draw.choice(c)] for c in choices], "gold": gold}))
    export_predictions(LAYOUTS[target], pl.concat(predictions), pl.concat(examples), tmp_path, {})
    assert_same_scores(target, tmp_path, pl.concat(predictions))
