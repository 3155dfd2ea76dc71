"""Training runs on the toy tasks: models, loops, specifications and published inputs for tests."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from toy import toy_frame, toy_task
from xlift.artifacts import publish_folder
from xlift.compute import Compute
from xlift.encoder.adapt import Trainable, make_trainable
from xlift.encoder.model import AnyEncoder, load_encoder
from xlift.tasks.encoded import TOKENS, Batch, Encoded, collate
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import Family
from xlift.training.build import Inputs
from xlift.training.cost import training_flops
from xlift.training.loop import Realised, TrainingLoop, trained_parameters
from xlift.training.parts import Optimisation, Part, Stage
from xlift.training.run import encoder_shape, train_run
from xlift.training.schedule import Schedule

CPU = torch.device("cpu")
FAMILY_NAMES = sorted(FAMILIES)
LORA, FULL = Trainable(rank=4, alpha=16.0), Trainable(method="full")
CAP = 2048


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder with a task's head on it, and the family that knows what to do with both."""

    encoder: AnyEncoder
    head: nn.Module
    family: Family

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters of both, by name."""
        return trained_parameters(self.encoder, self.head)


def decaying(peak: float, steps: int, warmup: float) -> Schedule:
    """A rise over a share `warmup` of the steps, then a fall over all the rest."""
    rise = math.ceil(warmup * steps)
    return Schedule(peak, steps, rise, rise)


def settings(steps: int = 30, rate: float = 5e-3, warmup: float = 0.1, **changes: Any) -> Optimisation:
    """How a toy run is optimised."""
    plain = {"batch_size": 8, "weight_decay": 0.01, "clip": 1.0, "seed": 1}
    return Optimisation(schedule=decaying(rate, steps, warmup), **{**plain, **changes})


def prepared(
    family: str, folder: Path, trainable: Trainable = LORA, max_length: int = 32, dropout: float = 0.0
) -> tuple[Encoded, Model]:
    """Tokens, and a trainable encoder with its head."""
    torch.manual_seed(3)
    task = toy_task(family)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = FAMILIES[family].encode(toy_frame(family), tokenizer, task, max_length, 8)
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU, dropout=dropout)
    make_trainable(encoder, trainable, seed=1)
    head = FAMILIES[family].head(encoder.hidden_size, task, dropout)
    return encoded, Model(encoder, head, FAMILIES[family])


def loop_of(
    model: Model,
    encoded: Encoded,
    optimisation: Optimisation,
    compute: Compute,
    folder: Path,
    trainable: Trainable = LORA,
    cap: int = CAP,
    **changes: Any,
) -> TrainingLoop:
    """A loop over a toy task."""
    shape = encoder_shape(folder, trainable.layers)

    def cost(batch: Batch) -> float:
        return training_flops(shape, *batch.tokens.shape, trainable.method, trainable.rank)

    part = Part("toy", model.family, model.head, encoded, cost)
    return TrainingLoop(model.encoder, model.head, [Stage([part], optimisation)], compute, cap, "toy run", **changes)


def run_loop(*arguments: Any, **changes: Any) -> Realised:
    """Train a toy task to its end."""
    return loop_of(*arguments, **changes).run()


def specification(family: str, **changes: Any) -> dict[str, Any]:
    """A run's specification as the grid makes it; dotted names change entries of its blocks."""
    found: dict[str, Any] = {
        "kind": "intermediate",
        "task": f"toy_{family}",
        "parent": None,
        "trainable": dataclasses.asdict(LORA),
        "training": {"weight_decay": 0.01, "clip": 1.0, "dropout": 0.1, "precision": "fp32", "threads": 1},
        "recipe": {"steps": 12, "batch_size": 4, "learning_rate": 5e-3, "max_length": 32, "stride": 8},
        "schedule": {"kind": "linear", "warmup_steps": 2},
        "unique_fraction": 1.0,
        "control": None,
        "select": "last",
        "seed": 1,
        "draw": 1,
    }
    for name, value in changes.items():
        block, _, key = name.partition("__")
        if key:
            found[block] = {**found[block], key: value}
        else:
            found[block] = value
    return found


def publish_inputs(
    family: str, encoder: Path, folder: Path, frame: pl.DataFrame | None = None, **places: Path | None
) -> Inputs:
    """Write a toy task's rows and tokens as the jobs do and say where."""
    rows = toy_frame(family) if frame is None else frame
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    encoded = FAMILIES[family].encode(rows, tokenizer, toy_task(family), 32, 8)
    tokens, data = folder / "encoded" / family, folder / f"{family}.parquet"
    publish_folder(tokens, lambda out: encoded.save(out / TOKENS), {})
    rows.write_parquet(data)
    return Inputs(encoder=encoder, encoded=[tokens], data=[data], **{"parent": None, **places})


def whole_batch(encoded: Encoded, family: Family, chosen: torch.Tensor, pad_id: int) -> Batch:
    """All sequences of the examples in one batch."""
    return collate(encoded, family.sequences(encoded, chosen), pad_id)


def flop_counter() -> FlopCounterMode:
    """Counts operations; torch's own counter knows addmm and not its in-place form: 2 x rows x inner x columns."""

    def in_place(self_shape, a_shape, b_shape, *args, out_shape=None, **kwargs) -> int:
        (rows, inner), (_, columns) = a_shape, b_shape
        return 2 * rows * inner * columns

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})


def start_run(family: str, inputs: Inputs, out: Path, execution: Any = None, **changes: Any) -> dict[str, Any]:
    """Train a toy run to its end; its manifest."""
    return train_run([toy_task(family)], specification(family, **changes), inputs, out, time.time(), execution)


def joined(given: Sequence[Inputs], **places: Path | None) -> Inputs:
    """The inputs of a run on several sets of examples, from those of runs on each."""
    encoded, data = ([path for one in given for path in getattr(one, name)] for name in ("encoded", "data"))
    return dataclasses.replace(given[0], encoded=encoded, data=data, **places)


def mixture_specification(families: Sequence[str], **changes: Any) -> dict[str, Any]:
    """The specification of a run on several toy tasks at once."""
    parts = [{"task": f"toy_{family}"} for family in families]
    return specification("", **{"task": "mixture", "parts": parts, "cap": 1000, **changes})


def cotrained_specification(family: str, share: float = 0.5, mask: float = 0.15, **changes: Any) -> dict[str, Any]:
    """The specification of a run on a toy task with masked-language modelling mixed in."""
    made = specification(family, **changes)
    return {**made, "mlm": {"task": "mlm", "share": share, "mask": mask, "max_length": 32}}


def staged_specification(stages: Sequence[tuple[str, int]], **changes: Any) -> dict[str, Any]:
    """The specification of a run on one toy task after the other, given families and steps."""
    recipe = {"batch_size": 4, "learning_rate": 5e-3, "max_length": 32, "stride": 8}
    made = [
        {
            "task": f"toy_{family}",
            "recipe": {**recipe, "steps": steps, "batch_size": 4 + place},
            "schedule": {"kind": "linear", "warmup_steps": 1 + place},
        }
        for place, (family, steps) in enumerate(stages)
    ]
    whole = {"recipe__steps": sum(steps for _, steps in stages), "schedule": {"kind": "stages"}}
    return specification(stages[-1][0], stages=made, kind="target", **whole, **changes)


def start_several(
    families: Sequence[str], made: dict[str, Any], inputs: Inputs, out: Path, execution: Any = None
) -> dict[str, Any]:
    """Train a run on several toy tasks to its end; its manifest."""
    return train_run([toy_task(family) for family in families], made, inputs, out, time.time(), execution)
