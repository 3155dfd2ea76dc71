"""YAML files of settings, in which nothing is overlooked."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from xlift.errors import UserError

EVALUATED = "__use_yte__"
"""The key by which Snakemake's own reader takes a file for a template with Python in it (the package yte)."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error instead of the last one winning."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """A study file's mapping; `UserError` where the file is missing, is not YAML, or is not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such study file; give the path of a YAML file such as config/config.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a UTF-8 YAML file") from None
    try:
        content = yaml.load(text, Loader=_Loader)
    # PyYAML's constructors of tagged values raise all of these for a value that is not of its tag.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise UserError(f"{path}{line}: is not valid YAML ({problem}); correct that line") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; start from config/config.yaml")
    if EVALUATED in content:
        raise UserError(
            f"{path}: {EVALUATED}: makes Snakemake evaluate parts of this file as Python; remove it, and do not run a "
            "file of another's that has it"
        )
    return content
