"""What a study's methods paragraph cites, as BibTeX.

A text marks a citation by its key, `[@holm1979]` or `[@a; @b]`; the marks become author and year, and the bibliography
is of the keys that were marked: neither can lack what the other has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MARK = re.compile(r"\[((?:@\w+(?:; )?)+)\]")


@dataclass(frozen=True)
class Work:
    """A cited work: how a text names it, its BibTeX type and fields."""

    short: str
    kind: str
    fields: Mapping[str, str]

    def bibtex(self, key: str) -> str:
        """The entry, a field a line."""
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{key},", *lines, "}"])


def _paper(short: str, author: str, title: str, booktitle: str, year: int, pages: str, doi: str, arxiv: str) -> Work:
    fields = {"author": author, "title": title, "booktitle": booktitle, "year": str(year), "pages": pages, "doi": doi}
    return Work(short, "inproceedings", fields | {"eprint": arxiv, "archivePrefix": "arXiv"})


def _article(
    short: str, author: str, title: str, journal: str, year: int, volume: int, issue: int, pages: str, doi: str = ""
) -> Work:
    fields = {"author": author, "title": title, "journal": journal, "year": str(year)}
    fields |= {"volume": str(volume), "number": str(issue), "pages": pages}
    return Work(short, "article", fields | ({"doi": doi} if doi else {}))


WORKS: Mapping[str, Work] = {
    "phang2020": _paper(
        "Phang et al., 2020",
        "Phang, Jason and Calixto, Iacer and Htut, Phu Mon and Pruksachatkun, Yada and Liu, Haokun and Vania, Clara "
        "and Kann, Katharina and Bowman, Samuel R.",
        "{E}nglish Intermediate-Task Training Improves Zero-Shot Cross-Lingual Transfer Too",
        "Proceedings of AACL-IJCNLP 2020",
        2020,
        "557--575",
        "10.18653/v1/2020.aacl-main.56",
        "2005.13013",
    ),
    "ruder2021": _paper(
        "Ruder et al., 2021",
        "Ruder, Sebastian and Constant, Noah and Botha, Jan and Siddhant, Aditya and Firat, Orhan and Fu, Jinlan and "
        "Liu, Pengfei and Hu, Junjie and Garrette, Dan and Neubig, Graham and Johnson, Melvin",
        "{XTREME-R}: Towards More Challenging and Nuanced Multilingual Evaluation",
        "Proceedings of EMNLP 2021",
        2021,
        "10215--10245",
        "10.18653/v1/2021.emnlp-main.802",
        "2104.07412",
    ),
    "conneau2020": _paper(
        "Conneau et al., 2020",
        "Conneau, Alexis and Khandelwal, Kartikay and Goyal, Naman and Chaudhary, Vishrav and Wenzek, Guillaume and "
        "Guzm{\\'a}n, Francisco and Grave, Edouard and Ott, Myle and Zettlemoyer, Luke and Stoyanov, Veselin",
        "Unsupervised Cross-lingual Representation Learning at Scale",
        "Proceedings of ACL 2020",
        2020,
        "8440--8451",
        "10.18653/v1/2020.acl-main.747",
        "1911.02116",
    ),
    "joshi2020": _paper(
        "Joshi et al., 2020",
        "Joshi, Pratik and Santy, Sebastin and Budhiraja, Amar and Bali, Kalika and Choudhury, Monojit",
        "The State and Fate of Linguistic Diversity and Inclusion in the {NLP} World",
        "Proceedings of ACL 2020",
        2020,
        "6282--6293",
        "10.18653/v1/2020.acl-main.560",
        "2004.09095",
    ),
    "xue2021": _paper(
        "Xue et al., 2021",
        "Xue, Linting and Constant, Noah and Roberts, Adam and Kale, Mihir and Al-Rfou, Rami and Siddhant, Aditya and "
        "Barua, Aditya and Raffel, Colin",
        "m{T}5: A Massively Multilingual Pre-trained Text-to-Text Transformer",
        "Proceedings of NAACL 2021",
        2021,
        "483--498",
        "10.18653/v1/2021.naacl-main.41",
        "2010.11934",
    ),
    "wang2024": Work(
        "Wang et al., 2024",
        "misc",
        {
            "author": "Wang, Liang and Yang, Nan and Huang, Xiaolong and Yang, Linjun and Majumder, Rangan and "
            "Wei, Furu",
            "title": "Multilingual {E5} Text Embeddings: A Technical Report",
            "year": "2024",
            "eprint": "2402.05672",
            "archivePrefix": "arXiv",
        },
    ),
    "hu2022": Work(
        "Hu et al., 2022",
        "inproceedings",
        {
            "author": "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and "
            "Wang, Shean and Wang, Lu and Chen, Weizhu",
            "title": "{LoRA}: Low-Rank Adaptation of Large Language Models",
            "booktitle": "International Conference on Learning Representations",
            "year": "2022",
            "eprint": "2106.09685",
            "archivePrefix": "arXiv",
        },
    ),
    "cameron2011": _article(
        "Cameron et al., 2011",
        "Cameron, A. Colin and Gelbach, Jonah B. and Miller, Douglas L.",
        "Robust Inference With Multiway Clustering",
        "Journal of Business \\& Economic Statistics",
        2011,
        29,
        2,
        "238--249",
        "10.1198/jbes.2010.07136",
    ),
    "bell2002": _article(
        "Bell and McCaffrey, 2002",
        "Bell, Robert M. and McCaffrey, Daniel F.",
        "Bias Reduction in Standard Errors for Linear Regression with Multi-Stage Samples",
        "Survey Methodology",
        2002,
        28,
        2,
        "169--181",
    ),
    "satterthwaite1946": _article(
        "Satterthwaite, 1946",
        "Satterthwaite, F. E.",
        "An Approximate Distribution of Estimates of Variance Components",
        "Biometrics Bulletin",
        1946,
        2,
        6,
        "110--114",
        "10.2307/3002019",
    ),
    "holm1979": _article(
        "Holm, 1979",
        "Holm, Sture",
        "A Simple Sequentially Rejective Multiple Test Procedure",
        "Scandinavian Journal of Statistics",
        1979,
        6,
        2,
        "65--70",
    ),
    "benjamini1995": _article(
        "Benjamini and Hochberg, 1995",
        "Benjamini, Yoav and Hochberg, Yosef",
        "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing",
        "Journal of the Royal Statistical Society: Series B",
        1995,
        57,
        1,
        "289--300",
        "10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "schuirmann1987": _article(
        "Schuirmann, 1987",
        "Schuirmann, Donald J.",
        "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the Equivalence of "
        "Average Bioavailability",
        "Journal of Pharmacokinetics and Biopharmaceutics",
        1987,
        15,
        6,
        "657--680",
        "10.1007/BF01068419",
    ),
    # As CITATION.cff has it, which an installed package does not: a test holds them together.
    "xlift": Work(
        "The xlift developers",
        "software",
        {
            "author": "{The xlift developers}",
            "title": "xlift: intermediate-task training budgets and zero-shot transfer by language resource level",
            "version": "0.1.0",
            "license": "Apache-2.0",
        },
    ),
}


def cited(text: str) -> list[str]:
    """The keys that a text marks, in the order of their first mark."""
    return list(dict.fromkeys(key for mark in _MARK.findall(text) for key in _keys(mark)))


def in_words(text: str) -> str:
    """The text with author and year in the place of every mark."""
    return _MARK.sub(lambda mark: f"({'; '.join(WORKS[key].short for key in _keys(mark[1]))})", text)


def bibliography(keys: Sequence[str]) -> str:
    """BibTeX entries of the keys, in their order."""
    return "\n\n".join(WORKS[key].bibtex(key) for key in keys)


def _keys(mark: str) -> list[str]:
    return [part.lstrip("@") for part in mark.split("; ")]
