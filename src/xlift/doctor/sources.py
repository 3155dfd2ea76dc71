"""Encoder and data of a study: packaged, in folders, or on the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from xlift.doctor.finding import Finding, ok, problem, warning
from xlift.encoder.packaged import check_packaged, locate
from xlift.errors import UserError
from xlift.settings import HubEncoder, PackagedEncoder
from xlift.study import Study, check_paths

PATIENCE = 5.0
"""Seconds that the hub has to answer."""
SHOWN = 4


def repositories(study: Study) -> list[str]:
    """Repositories that the study reads, sorted: `models/<id>` of its encoder and `datasets/<id>` of its tasks."""
    found = {
        f"datasets/{part.repository}"
        for task in study.used
        for part in study.catalog[task].slices
        if not part.in_folder
    }
    encoder = {f"models/{study.encoder.id}"} if isinstance(study.encoder, HubEncoder) else set()
    return sorted(found | encoder)


def check_packaged_encoder(study: Study, find: Callable[[], Path] = locate) -> Iterator[Finding]:
    """The packaged encoder's file, where the study uses it."""
    if isinstance(study.encoder, PackagedEncoder):
        try:
            path = find()
            check_packaged(path)
        except UserError as error:
            yield _of(error, "encoder")
        else:
            yield ok("encoder", f"packaged, {path.name} with the pinned sha256")


def check_study_paths(study: Study, file: str) -> Finding:
    """Folders and tables that the study file names."""
    try:
        check_paths(study, file)
    except UserError as error:
        return _of(error, "study")
    return ok("study", f"{file}: is in order, and what it names is there")


def check_root(study: Study) -> Iterator[Finding]:
    """The repositories in the folder of copies, where the study reads them there."""
    if study.data.root is None or not (names := repositories(study)):
        return
    root = Path(study.data.root)
    missing = [name for name in names if not (root / name.partition("/")[2]).is_dir()]
    if missing:
        advice = f"download each into {root}/<org>/<name> (docs/hub.md), or remove data.root to read the hub"
        yield problem("data.root", f"{root} lacks {_listed(missing)}", advice)
    else:
        yield ok("data.root", f"{root} holds the {len(names)} repositories that the study reads")


def check_hub(study: Study, patience: float = PATIENCE) -> Iterator[Finding]:
    """Whether the hub answers, or its cache holds everything, where the study reads it. Asks once, and not for long."""
    names = repositories(study)
    if study.data.root is not None or not names:
        yield ok("hub", "is not needed")
        return
    import httpx2
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    missing = [name for name in names if not (cache / name.replace("/", "--")).is_dir()]
    offline = "prepare the study once where there is a network, copy the cache, or give a data.root (docs/hub.md)"
    if not missing:
        yield ok("hub", f"the cache {cache} knows all {len(names)} repositories")
        return
    if constants.HF_HUB_OFFLINE:
        yield problem(
            "hub", f"HF_HUB_OFFLINE is set, and the cache {cache} lacks {_listed(missing)}", f"unset it; or {offline}"
        )
        return
    try:
        status = httpx2.head(constants.ENDPOINT, timeout=patience, follow_redirects=True).status_code
        said = f"answers with HTTP {status}"
    except httpx2.HTTPError as error:
        status, said = 0, f"does not answer within {patience:g} s ({type(error).__name__})"
    if 200 <= status < 400:
        yield ok("hub", f"{constants.ENDPOINT} answers; {len(missing)} of {len(names)} repositories are still to come")
    elif status:
        yield warning("hub", f"{constants.ENDPOINT} {said}", "try again later, or check HF_ENDPOINT and any proxy")
    else:
        yield problem("hub", f"{constants.ENDPOINT} {said}, and the cache lacks {_listed(missing)}", offline)


def _of(error: UserError, name: str) -> Finding:
    """An error's sentence as a finding: what is wrong, and after the last colon or semicolon what to do."""
    text = str(error)
    cut = max(text.rfind("; "), text.rfind(": "))
    return problem(name, text[:cut], text[cut + 2 :])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
