"""The training loop: exact optimiser steps over micro-batches, from a seed, from any step on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from torch import Tensor, nn

from xlift.compute import Compute
from xlift.encoder.model import AnyEncoder
from xlift.errors import UserError
from xlift.tasks.encoded import Batch
from xlift.training.feed import Step, pinned, prefetched
from xlift.training.optimiser import AdamW
from xlift.training.parts import Course, Part, Stage, courses, planned
from xlift.training.progress import Pace, progress_line, speeds
from xlift.training.state import State, StateFolder, stop_requests

ENTRY_EVERY = 10
"""Steps between entries of log.jsonl: each waits for the device, and looks whether the losses are finite."""
DEV_LOOKS = 10
"""How often a run that keeps its best weights looks at English dev, at equal distances; the last look is the end."""


LOG_ENTRIES = {
    "step": "Optimiser step, from 1.",
    "steps": "Steps of the whole run.",
    "loss": "The step's loss: the mean over its units (examples, words or windows).",
    "gradient_norm": "Norm of its gradient before clipping.",
    "lr": "Its learning rate.",
    "tokens": "Tokens without padding since the run's first step.",
    "tokens_per_s": "Tokens a second, the mean over at most the last 100 steps.",
    "seconds": "Seconds in the training loop since the run's first step.",
    "seconds_left": "Seconds that are left at that speed.",
    "task": "Task of the step, of a mixture or of stages.",
}
"""A line of log.jsonl; `task` is only in that of a run of several."""


def trained_parameters(encoder: nn.Module, head: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters of an encoder and the head or heads on it, by name."""
    return {
        f"{place}.{name}": parameter
        for place, module in (("encoder", encoder), ("head", head))
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

    def plus(self, more: Amounts) -> Amounts:
        """Both together."""
        added = asdict(more)
        return Amounts(**{name: value + added[name] for name, value in asdict(self).items()})


@dataclass
class Realised:
    """What a run really did; `inherited` is what the trunk it branches from had done before.

    `parts`: the same by part of a run of several, seconds left out. `first_step_at`: when this process made its first
    step (seconds since the epoch), if it made any.
    """

    total: Amounts = field(default_factory=Amounts)
    inherited: Amounts = field(default_factory=Amounts)
    parts: list[Amounts] = field(default_factory=list)
    first_step_at: float | None = None
    losses: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None

    def log_lines(self) -> str:
        """The log as JSON lines."""
        return "".join(map(json_line, self.log))


def json_line(entry: Mapping[str, Any]) -> str:
    """A line of log.jsonl."""
    return json.dumps(entry, sort_keys=True) + "\n"


class TrainingLoop:
    """One run: `run` trains to the end of its last stage; `state` and `restore` carry it over to another process.

    `head` holds the heads of all parts. `cap` is the most token positions of one forward and backward pass; `name`
    names the run in errors; `log`: where its log lies while it trains; `pause`: seconds a step takes longer, for tests.
    The loss of a step is the mean over its units (examples, windows or words); micro-batches add up to exactly that. A
    stage begins with the optimiser as at a run's first step.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        head: nn.Module,
        stages: Sequence[Stage],
        compute: Compute,
        cap: int,
        name: str,
        *,
        forward: Callable[..., Tensor] | None = None,
        dev_score: Callable[[], float] | None = None,
        log: Path | None = None,
        pause: float = 0.0,
    ) -> None:
        self._encoder, self._head, self._compute = encoder, head, compute
        self._name, self._dev_score, self._log, self._pause = name, dev_score, log, pause
        self._forward = forward or encoder
        self._courses = courses(stages, encoder.pad_id, cap, name)
        self._parts: list[Part] = [part for stage in stages for part in stage.parts]
        self._parameters = trained_parameters(encoder, head)
        self._optimiser = self._new_optimiser()
        self._ends = self._courses[-1].end
        self._history = torch.zeros(self._ends, 2, device=compute.device)
        self._norms: list[float] = []
        self._tokens_at: list[int] = []
        self._seconds_at: list[float] = []
        self._part_at = torch.zeros(self._ends, dtype=torch.int64)
        self._best: dict[str, Tensor] = {}
        self._best_score = -math.inf
        looks = {math.ceil(self._ends * look / DEV_LOOKS) for look in range(1, DEV_LOOKS + 1)}
        # A dev set is the last stage's, and its head has learnt nothing before.
        self._looks = {step for step in looks if step > self._courses[-1].first} if dev_score else set()
        self.realised = Realised(parts=[Amounts() for _ in self._parts])

    def run(self, states: StateFolder | None = None) -> Realised:
        """Train from the step reached to the end, saving to `states`, if any, when due and when asked to stop.

        Raises `UserError` after such a request, and at a loss that is not finite.
        """
        self._encoder.train()
        self._head.train()
        # Without a place for its state a run is stopped by a signal as any program is.
        with nullcontext() if states is None else stop_requests() as request, self._live_log() as live:
            steps, pace = self._steps(), Pace()
            while (done := self.realised.total.steps) < self._ends:
                started = time.perf_counter()
                self._advance(next(steps))
                time.sleep(self._pause)
                done += 1
                is_entry = self._is_entry(done)
                is_line = pace.due(is_entry) or done == self._ends
                if is_entry or is_line:
                    self._check(done)
                total = self.realised.total
                self.realised.total = replace(total, seconds=total.seconds + time.perf_counter() - started)
                self._seconds_at.append(self.realised.total.seconds)
                if is_entry:
                    self.realised.log.append(self._entry(done))
                    if live is not None:
                        live.write(json_line(self.realised.log[-1]))
                if is_line:
                    print(progress_line(self._entry(done)), flush=True)
                    pace.spoken()
                if done in self._looks:
                    self._look(done)
                if states is None:
                    continue
                if request is not None and request.name is not None:
                    states.save(self.state())
                    raise UserError(
                        f"{self._name}: stopped by {request.name} after step {done} of {self._ends}; its state is "
                        "saved: run the workflow again to go on from there"
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
        tensors |= {"history": self._history[:done], "tokens_at": torch.tensor(self._tokens_at, dtype=torch.int64)}
        tensors["seconds_at"] = torch.tensor(self._seconds_at, dtype=torch.float64)
        tensors["random.cpu"] = torch.get_rng_state()
        if self._compute.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._compute.device)
        facts: dict[str, Any] = {
            "step": done,
            "dtype": self._compute.dtype_name,
            "total": asdict(self.realised.total),
            "inherited": asdict(self.realised.inherited),
            "best_step": self.realised.best_step,
            "best_score": None if self.realised.best_step is None else self._best_score,
        }
        if self._several:
            tensors["part_at"] = self._part_at[:done]
            facts["parts"] = [asdict(amounts) for amounts in self.realised.parts]
        return State(tensors, facts)

    def restore(self, state: State, *, branch: bool = False) -> None:
        """Go on from a state of this run; with `branch`, from that of the trunk it branches from."""
        done = int(state.facts["step"])
        if done > (self._courses[-1].settings.schedule.hold_until if branch else self._ends):
            raise ValueError(f"{self._name}: a state at step {done} is past the point it should go on from")
        if state.facts["dtype"] != self._compute.dtype_name:
            raise UserError(
                f"{self._name}: was computed in {state.facts['dtype']} up to step {done}, and this machine computes in "
                f"{self._compute.dtype_name}; go on where it is the same, or set training.precision and start anew"
            )
        self._put({name: state.tensors[f"weights.{name}"] for name in self._parameters})
        self._optimiser.restore(
            {name.removeprefix("optimiser."): t for name, t in state.tensors.items() if name.startswith("optimiser.")}
        )
        self._best = {n.removeprefix("best."): t for n, t in state.tensors.items() if n.startswith("best.")}
        self._history[:done] = state.tensors["history"].to(self._history.device)
        self._tokens_at = state.tensors["tokens_at"].tolist()
        torch.set_rng_state(state.tensors["random.cpu"])
        if "random.cuda" in state.tensors and self._compute.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["random.cuda"], self._compute.device)
        total = Amounts(**state.facts["total"])
        inherited = total if branch else Amounts(**state.facts["inherited"])
        parts = [total]
        if self._several:
            self._part_at[:done] = state.tensors["part_at"]
            parts = [Amounts(**amounts) for amounts in state.facts["parts"]]
        self.realised = Realised(total, inherited, parts, best_step=state.facts["best_step"])
        if state.facts["best_score"] is not None:
            self._best_score = float(state.facts["best_score"])
        self._seconds_at = state.tensors["seconds_at"].tolist()
        # The log is made of the history, so that it is the same however often the run was stopped.
        self._norms = []
        self._check(done)
        self.realised.log = [self._entry(seen) for seen in range(1, done + 1) if self._is_entry(seen)]
        print(f"goes on after step {done}", flush=True)

    def _steps(self) -> Iterator[Step]:
        """The steps still to be made, prepared ahead where the device works by itself."""
        plan = islice(enumerate(planned(self._courses)), self.realised.total.steps, None)
        steps: Iterable[Step] = (course.step(number, place, chosen) for number, (course, place, chosen) in plan)
        if self._compute.device.type == "cuda":
            steps = prefetched(pinned(steps))
        return iter(steps)

    def _advance(self, step: Step) -> None:
        """One optimiser step; nothing in it waits for the device."""
        before = self.realised.total
        place, tokens, padded, flops = before.steps, 0, 0, 0.0
        part, course = self._parts[step.part], self._course(before.steps)
        if place == course.first > 0:
            self._optimiser = self._new_optimiser()
        for prepared in step.batches:
            batch = prepared.on(self._compute.device)
            loss = self._loss(part, batch, step.units)
            loss.backward()
            self._history[place, 0] += loss.detach()
            tokens += int(prepared.lengths.sum())
            padded += prepared.padded_tokens
            flops += part.cost(prepared)
        parameters = self._parameters.values()
        self._history[place, 1] = nn.utils.clip_grad_norm_(parameters, course.settings.clip)
        self._optimiser.step(self._rate(place))
        self._optimiser.zero_grad()
        self._tokens_at.append(before.tokens + tokens)
        self._part_at[place] = step.part
        own = Amounts(1, step.examples, tokens, padded, flops)
        self.realised.total = before.plus(own)
        self.realised.parts[step.part] = self.realised.parts[step.part].plus(own)
        if self.realised.first_step_at is None:
            self.realised.first_step_at = time.time()

    def _loss(self, part: Part, batch: Batch, units: int) -> Tensor:
        with self._compute.autocast():
            hidden = self._forward(batch.tokens, batch.mask, batch.types)
            return part.family.loss(part.head, hidden, batch, part.encoded) / units

    @property
    def _several(self) -> bool:
        """Whether the run has more than one part."""
        return len(self._parts) > 1

    def _course(self, place: int) -> Course:
        """The course that a step is of."""
        return next(course for course in self._courses if place < course.end)

    def _rate(self, place: int) -> float:
        """Learning rate of a step: each stage has its own rise and fall."""
        course = self._course(place)
        return course.settings.schedule.rate(place - course.first)

    def _new_optimiser(self) -> AdamW:
        return AdamW(self._parameters.items(), self._courses[0].settings.weight_decay)

    def _live_log(self) -> AbstractContextManager[TextIO | None]:
        """The log as far as it goes, open for more; it is whole once the run is published."""
        if self._log is None:
            return nullcontext()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        live = self._log.open("w", encoding="utf-8", buffering=1)
        live.write(self.realised.log_lines())
        return live

    def _is_entry(self, done: int) -> bool:
        """Whether the log has an entry after a step."""
        return done % ENTRY_EVERY == 0 or done == self._ends

    def _check(self, done: int) -> None:
        """Bring losses over from the device, and stop at one that is not finite."""
        losses = self.realised.losses
        for loss, norm in self._history[len(losses) : done].tolist():
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise UserError(
                    f"{self._name}: step {len(losses) + 1} of {self._ends} has a loss or gradient that is not finite "
                    f"(loss {loss}, gradient norm {norm}); lower the learning rate of the task in `recipes`, "
                    "or set training.precision to fp32"
                )
            losses.append(loss)
            self._norms.append(norm)

    def _entry(self, done: int) -> dict[str, Any]:
        """What the log says after a step that was checked."""
        entry = {
            **speeds(done, self._ends, self._tokens_at, self._seconds_at),
            "loss": self.realised.losses[done - 1],
            "gradient_norm": self._norms[done - 1],
            "lr": self._rate(done - 1),
        }
        if self._several:
            entry["task"] = self._parts[int(self._part_at[done - 1])].name
        return entry

    def _look(self, done: int) -> None:
        """Look at English dev; keep the weights if they are the best so far (the earliest of equals)."""
        score = cast(Callable[[], float], self._dev_score)()
        self._encoder.train()
        self._head.train()
        print(f"step {done}/{self._ends}  dev {score:.2f}", flush=True)
        if score > self._best_score:
            self._best_score = score
            self._best = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
            self.realised.best_step = done

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
