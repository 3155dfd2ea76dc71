"""The cells of XTREME-R: which of its 50 languages each of its ten targets has.

From Ruder et al. (2021, arXiv 2104.07412, "XTREME-R"), Table 1 and its evaluation lists. Tatoeba stands for both of its
protocols (direct, or after SQuAD), which have the same languages. 203 (target, language) cells, 195 without
English. Simulations and power calculations use it; a study's own layout comes from its targets.
"""

from __future__ import annotations

from collections.abc import Mapping

_POS = (
    "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko lt mr nl pl pt ro ru ta te th tl tr uk ur vi wo yo zh"
)
_NER = (
    "af ar az bg bn de el en es et eu fa fi fr gu he hi hu id it ja jv ka kk ko lt ml mr ms my nl pa pl pt qu ro ru "
    "sw ta te th tl tr uk ur vi yo zh"
)
_TATOEBA = (
    "af ar az bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko lt ml mr nl pl pt ro ru sw ta te th tl tr "
    "uk ur vi zh"
)

XTREME_R: Mapping[str, tuple[str, ...]] = {
    name: tuple(codes.split())
    for name, codes in {
        "lareqa": "ar de el en es hi ru th tr vi zh",
        "mewslix": "ar de en es fa ja pl ro ta tr uk",
        "mlqa": "ar de en es hi vi zh",
        "panx": _NER,
        "tatoeba": _TATOEBA,
        "tydiqa": "ar bn en fi id ko ru sw te",
        "udpos": _POS,
        "xcopa": "et ht id it qu sw ta th tr vi zh",
        "xnli": "ar bg de el en es fr hi ru sw th tr ur vi zh",
        "xquad": "ar de el en es hi ro ru th tr vi zh",
    }.items()
}
