"""What a model that learnt nothing scores, by hand and against all orders of a pool."""

from __future__ import annotations

from itertools import permutations

import pytest

from xlift import metrics
from xlift.errors import UserError
from xlift.metrics import METRICS, floor


def test_majority_accuracy_by_hand() -> None:
    assert metrics.majority_accuracy(["0", "1", "1", "2"]) == 50.0
    assert metrics.majority_accuracy(["0", "1", "2", "3"]) == 25.0
    with pytest.raises(UserError, match="no majority label"):
        metrics.majority_accuracy([])


def test_floors_of_labels_and_tags_by_hand() -> None:
    assert floor("accuracy", [["0"], ["1"], ["1"]], "en") == pytest.approx(200 / 3)
    golds = [["O", "O", "B-PER"], ["B-PER", "I-PER", "O"]]
    assert floor("span_f1", golds, "en") == 0.0
    # Three words of six are O.
    assert floor("token_accuracy", golds, "en") == 50.0
    # NOUN everywhere is NOUN 0-2 and NOUN 0; gold NOUN 0, VERB 1, NOUN 2 and NOUN 0: 2*1/(2+4).
    assert floor("xtreme_f1", [["NOUN", "VERB", "NOUN"], ["NOUN"]], "en") == pytest.approx(100 / 3)


def test_floors_of_answers_are_the_whole_context() -> None:
    contexts, golds = ["The red kite, at sea.", "kite"], [["kite"], ["sea", "a kite"]]
    # {red, kite, at, sea} against {kite}: 2*1/(4+1) = 0.4; the second is all of its context. Mean 0.7, exact
    # 1 of 2.
    assert floor("squad_f1", golds, "en", contexts=contexts) == pytest.approx(70.0)
    assert floor("squad_em", golds, "en", contexts=contexts) == 50.0
    # 4 characters against 2: 2*2/(4+2).
    assert floor("mlqa_f1", [["风筝"]], "zh", contexts=["红色风筝"]) == pytest.approx(200 / 3)


@pytest.mark.parametrize(("pool", "right"), [(1, 1), (4, 1), (5, 2), (5, 5), (6, 3)])
@pytest.mark.parametrize("metric", ["accuracy_at_1", "map_at_20"])
def test_floors_of_rankings_are_the_mean_over_all_orders(metric: str, pool: int, right: int) -> None:
    documents = [str(k) for k in range(pool)]
    orders = [list(order) for order in permutations(documents)]
    expected = METRICS[metric](orders, [documents[:right]] * len(orders), "en")
    assert floor(metric, [documents[:right]], "en", pool_sizes=[pool]) == pytest.approx(expected)


def test_floors_of_rankings_stop_at_20() -> None:
    # One right of 100: (1/100)(1 + 1/2 + ... + 1/20); the harmonic number of 20 is 3.597740.
    assert floor("map_at_20", [["a"]], "en", pool_sizes=[100]) == pytest.approx(3.597740, abs=1e-5)
    # Fifty right of fifty: whatever the order, every rank is right.
    assert floor("map_at_20", [[str(k) for k in range(50)]], "en", pool_sizes=[50]) == pytest.approx(100.0)


def test_floors_refuse() -> None:
    with pytest.raises(UserError, match="no metric 'bleu'"):
        floor("bleu", [["a"]], "en")
    with pytest.raises(UserError, match="needs `contexts`"):
        floor("squad_f1", [["a"]], "en")
    with pytest.raises(UserError, match=r"needs `contexts`: give 2,"):
        floor("squad_f1", [["a"], ["b"]], "en", contexts=["a"])
    with pytest.raises(UserError, match="needs `pool_sizes`"):
        floor("map_at_20", [["a"]], "en")
    with pytest.raises(UserError, match="2 right documents in a pool of 1"):
        floor("map_at_20", [["a", "b"]], "en", pool_sizes=[1])
    with pytest.raises(UserError, match="gold is empty"):
        floor("accuracy", [["a"], []], "en")
    with pytest.raises(UserError, match="nothing to score"):
        floor("span_f1", [], "en")


def test_the_floor_of_squad_v2_is_silence_where_that_is_better() -> None:
    # Silent: 2 of 3 right. The whole context: {red, kite} against {kite} 2/3, and 0 twice.
    golds = [[""], [""], ["kite"]]
    assert floor("squad_v2_f1", golds, "en", contexts=["sea", "moon", "red kite"]) == pytest.approx(200 / 3)
    assert floor("squad_v2_em", golds, "en", contexts=["sea", "moon", "kite"]) == pytest.approx(200 / 3)
    # One of three has none: silent 1/3; the contexts 1, 2/3 and 0.
    golds = [["sea"], ["kite"], [""]]
    assert floor("squad_v2_f1", golds, "en", contexts=["the sea", "red kite", "moon"]) == pytest.approx(500 / 9)
    # Of SQuAD 1.1 silence is never right.
    assert floor("squad_f1", [["kite"]], "en", contexts=["moon"]) == 0.0


def test_the_floor_of_mining_is_nothing_mined() -> None:
    assert floor("bitext_f1", [["a"], []], "de") == 0.0


def test_the_floor_at_a_common_size_is_that_of_the_smaller_pool() -> None:
    # One of 200 in the large pool, one of 150 in the small one.
    expected = 100 * (1 / 200 + 1 / 150) / 2
    assert floor("accuracy_at_1_common", [["a"], ["a"]], "en", pool_sizes=[1000, 150]) == pytest.approx(expected)
