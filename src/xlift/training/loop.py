"""The training loop: exact optimiser steps over micro-batches, from a seed, from any step on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from xlift.budgets import check_batch
from xlift.compute import Compute
from xlift.encoder.model import AnyEncoder
from xlift.errors import UserError
from xlift.tasks.encoded import Batch, Encoded
from xlift.tasks.family import Family
from xlift.training.batches import plan_batches, training_subset
from xlift.training.feed import Feed, Step, example_lengths, pinned, prefetched
from xlift.training.optimiser import AdamW
from xlift.training.schedule import Schedule
from xlift.training.state import State, StateFolder, stop_requests

CHECK_EVERY = 10
"""Steps between looks at the loss: each look waits for the device."""
DEV_LOOKS = 10
"""How often a run that keeps its best weights looks at English dev, at equal distances; the last look is the end."""


@dataclass(frozen=True)
class Optimisation:
    """How a run is optimised: `schedule.steps` steps of `batch_size` examples.

    `seed` draws batches; `unique_fraction` of the training examples are drawn from, chosen by `subset_seed`.
    """

    schedule: Schedule
    batch_size: int
    weight_decay: float
    clip: float
    seed: int
    unique_fraction: float = 1.0
    subset_seed: int = 0


@dataclass(frozen=True)
class Model:
    """An encoder with a task's head on it, and the family that knows what to do with both."""

    encoder: AnyEncoder
    head: nn.Module
    family: Family

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters of both, by name."""
        return {
            f"{place}.{name}": parameter
            for place, module in (("encoder", self.encoder), ("head", self.head))
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }


@dataclass(frozen=True)
class Amounts:
    """What a run did since its very first step: tokens without and with padding, operations, seconds in the loop."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def minus(self, other: Amounts) -> Amounts:
        """What was done since `other`."""
        before = asdict(other)
        return Amounts(**{name: value - before[name] for name, value in asdict(self).items()})


@dataclass
class Realised:
    """What a run really did; `inherited` is what the trunk it branches from had done before.

    `first_step_at`: when this process made its first step (seconds since the epoch), if it made any.
    """

    total: Amounts = field(default_factory=Amounts)
    inherited: Amounts = field(default_factory=Amounts)
    first_step_at: float | None = None
    losses: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None

    def log_lines(self) -> str:
        """The log as JSON lines."""
        return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in self.log)


class TrainingLoop:
    """One run: `run` trains to the end of its schedule; `state` and `restore` carry it over to another process.

    `cost(sequences, width)` gives the operations of one forward and backward pass; `cap` is the most token positions
    of one; `name` names the run in errors; `pause`: seconds a step takes longer, for tests. The loss of a step is the
    mean over its units (examples, windows or words); micro-batches add up to exactly that.
    """

    def __init__(
        self,
        model: Model,
        encoded: Encoded,
        settings: Optimisation,
        compute: Compute,
        cost: Callable[[int, int], float],
        cap: int,
        name: str,
        *,
        forward: Callable[..., Tensor] | None = None,
        dev_score: Callable[[], float] | None = None,
        pause: float = 0.0,
    ) -> None:
        examples = training_subset(
            model.family.training_examples(encoded), settings.unique_fraction, settings.subset_seed
        )
        if len(examples) == 0:
            raise UserError(f"{name}: the task has no training examples; choose another task or check its data")
        check_batch(settings.batch_size, len(examples), name, "it")
        self._model, self._settings, self._compute, self._cost = model, settings, compute, cost
        self._name, self._dev_score, self._pause = name, dev_score, pause
        self._forward = forward or model.encoder
        self._feed = Feed(model.family, encoded, model.encoder.pad_id, cap)
        self._examples, self._lengths = examples, example_lengths(encoded)[examples]
        self._parameters = model.trained()
        self._optimiser = AdamW(self._parameters.items(), settings.weight_decay)
        steps = settings.schedule.steps
        self._history = torch.zeros(steps, 2, device=compute.device)
        self._tokens_at = torch.zeros(steps, dtype=torch.int64)
        self._best: dict[str, Tensor] = {}
        self._best_score = -math.inf
        self._looks = {math.ceil(steps * look / DEV_LOOKS) for look in range(1, DEV_LOOKS + 1)} if dev_score else set()
        self.realised = Realised()

    def run(self, states: StateFolder | None = None) -> Realised:
        """Train from the step reached to the end, saving to `states`, if any, when due and when asked to stop.

        Raises `UserError` after such a request, and at a loss that is not finite.
        """
        self._model.encoder.train()
        self._model.head.train()
        # Without a place for its state a run is stopped by a signal as any program is.
        with nullcontext() if states is None else stop_requests() as request:
            steps = self._steps()
            while (done := self.realised.total.steps) < self._settings.schedule.steps:
                started = time.perf_counter()
                self._advance(next(steps))
                time.sleep(self._pause)
                done += 1
                self._check(done)
                total = self.realised.total
                self.realised.total = replace(total, seconds=total.seconds + time.perf_counter() - started)
                if done in self._looks:
                    self._look(done)
                if states is None:
                    continue
                if request is not None and request.name is not None:
                    states.save(self.state())
                    raise UserError(
                        f"{self._name}: stopped by {request.name} after step {done} of "
                        f"{self._settings.schedule.steps}; its state is saved: run the workflow again to go on from "
                        "there"
                    )
                if states.due:
                    states.save(self.state())
        if self._best:
            self._put(self._best)
        return self.realised

    def state(self) -> State:
        """Everything that decides the rest of the run."""
        done = self.realised.total.steps
        tensors: dict[str, Tensor] = {f"weights.{name}": parameter for name, parameter in self._parameters.items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in self._optimiser.state().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        tensors |= {"history": self._history[:done], "tokens_at": self._tokens_at[:done]}
        tensors["random.cpu"] = torch.get_rng_state()
        if self._compute.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._compute.device)
        facts: dict[str, Any] = {
            "step": done,
            "total": asdict(self.realised.total),
            "inherited": asdict(self.realised.inherited),
            "best_step": self.realised.best_step,
            "best_score": None if self.realised.best_step is None else self._best_score,
        }
        return State(tensors, facts)

    def restore(self, state: State, *, branch: bool = False) -> None:
        """Go on from a state of this run; with `branch`, from that of the trunk it branches from."""
        done, schedule = int(state.facts["step"]), self._settings.schedule
        if done > (schedule.hold_until if branch else schedule.steps):
            raise ValueError(f"{self._name}: a state at step {done} is past the point it should go on from")
        self._put({name: state.tensors[f"weights.{name}"] for name in self._parameters})
        self._optimiser.restore(
            {name.removeprefix("optimiser."): t for name, t in state.tensors.items() if name.startswith("optimiser.")}
        )
        self._best = {n.removeprefix("best."): t for n, t in state.tensors.items() if n.startswith("best.")}
        self._history[:done] = state.tensors["history"].to(self._history.device)
        self._tokens_at[:done] = state.tensors["tokens_at"]
        torch.set_rng_state(state.tensors["random.cpu"])
        if "random.cuda" in state.tensors and self._compute.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["random.cuda"], self._compute.device)
        total = Amounts(**state.facts["total"])
        inherited = total if branch else Amounts(**state.facts["inherited"])
        self.realised = Realised(total, inherited, best_step=state.facts["best_step"])
        if state.facts["best_score"] is not None:
            self._best_score = float(state.facts["best_score"])
        # The log is made of the history, so that it is the same however often the run was stopped.
        for seen in range(1, done + 1):
            self._check(seen, quiet=True)
        print(f"goes on after step {done}", flush=True)

    def _steps(self) -> Iterator[Step]:
        """The steps still to be made, prepared ahead where the device works by itself."""
        settings = self._settings
        plan = plan_batches(self._examples, self._lengths, settings.batch_size, settings.schedule.steps, settings.seed)
        steps: Iterable[Step] = (self._feed.step(chosen) for chosen in islice(plan, self.realised.total.steps, None))
        if self._compute.device.type == "cuda":
            steps = prefetched(pinned(steps))
        return iter(steps)

    def _advance(self, step: Step) -> None:
        """One optimiser step; nothing in it waits for the device."""
        before = self.realised.total
        place, tokens, padded, flops = before.steps, 0, 0, 0.0
        for prepared in step.batches:
            batch = prepared.on(self._compute.device)
            loss = self._loss(batch, step.units)
            loss.backward()
            self._history[place, 0] += loss.detach()
            tokens += int(prepared.lengths.sum())
            padded += prepared.padded_tokens
            flops += self._cost(*prepared.tokens.shape)
        parameters = self._parameters.values()
        self._history[place, 1] = nn.utils.clip_grad_norm_(parameters, self._settings.clip)
        self._optimiser.step(self._settings.schedule.rate(place))
        self._optimiser.zero_grad()
        self._tokens_at[place] = before.tokens + tokens
        self.realised.total = Amounts(
            place + 1,
            before.examples + step.examples,
            before.tokens + tokens,
            before.padded_tokens + padded,
            before.flops + flops,
            before.seconds,
        )
        if self.realised.first_step_at is None:
            self.realised.first_step_at = time.time()

    def _loss(self, batch: Batch, units: int) -> Tensor:
        with self._compute.autocast():
            hidden = self._forward(batch.tokens, batch.mask, batch.types)
            return self._model.family.loss(self._model.head, hidden, batch, self._feed.encoded) / units

    def _check(self, done: int, quiet: bool = False) -> None:
        """Now and then bring losses over from the device, stop at one that is not finite, and log the newest."""
        steps = self._settings.schedule.steps
        if done % CHECK_EVERY and done != steps:
            return
        losses = self.realised.losses
        fresh = self._history[len(losses) : done].tolist()
        for loss, norm in fresh:
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise UserError(
                    f"{self._name}: step {len(losses) + 1} of {steps} has a loss or gradient that is not finite "
                    f"(loss {loss}, gradient norm {norm}); lower the learning rate of the task in `recipes`, "
                    "or set training.precision to fp32"
                )
            losses.append(loss)
        entry = {
            "step": done,
            "loss": fresh[-1][0],
            "gradient_norm": fresh[-1][1],
            "learning_rate": self._settings.schedule.rate(done - 1),
            "tokens": int(self._tokens_at[done - 1]),
        }
        self.realised.log.append(entry)
        if not quiet:
            print(f"step {done}/{steps}  loss {entry['loss']:.4f}  tokens {entry['tokens']}", flush=True)

    def _look(self, done: int) -> None:
        """Look at English dev; keep the weights if they are the best so far (the earliest of equals)."""
        score = cast(Callable[[], float], self._dev_score)()
        self._model.encoder.train()
        self._model.head.train()
        print(f"step {done}/{self._settings.schedule.steps}  dev {score:.2f}", flush=True)
        if score > self._best_score:
            self._best_score = score
            self._best = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
            self.realised.best_step = done

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
