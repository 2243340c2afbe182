"""One private training step beside a plain one, and beside what Opacus and torch offer for the same step.

The model is a recommender of the twin's size: an embedding of 1,000 codes, 64 numbers each, a mean over what
was seen, a hidden layer and a score for each code. A sample is one person: 4 examples of 16 codes, the loss
averaged. Every private step clips one vector a person, adds noise and moves the model: `ours` by
book-keeping with cryptographic noise, `hooks` and `ghost` by Opacus's two ways, `vmap` by torch's own, these
three with noise that is not cryptographic.

A ratio is the median over rounds of a step's CPU time over that of the plain step beside it. Memory is what
two steps add at the peak to a process of their own, the median of five.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn

from vault.twin.bookkeeping import Tensors, clipped_sums
from vault.twin.train import SummedOptimizer

BATCHES = (256, 1024)
CODES, WIDTH, EXAMPLES, SEEN = 1_000, 64, 4, 16
CLIP, NOISE, RATE = 1.0, 1.0, 0.05
Step = Callable[[Tensors], object]


class Recommender(nn.Module):
    """Embedding, mean, hidden layer, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.hidden, self.scores = (
            nn.Embedding(CODES, WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, CODES),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Return [people, examples, codes] from ids [people, examples, seen]."""
        out: Tensor = self.scores(torch.tanh(self.hidden(self.seen(ids).mean(-2))))
        return out


def people_of(count: int) -> Tensors:
    """Draw people at random; nothing is learned here."""
    return {
        "ids": torch.randint(0, CODES, (count, EXAMPLES, SEEN)),
        "next": torch.randint(0, CODES, (count, EXAMPLES)),
    }


def loss(model: nn.Module, people: Tensors) -> Tensor:
    """Return each person's mean loss."""
    scores, following = model(people["ids"]), people["next"]
    each = nn.functional.cross_entropy(scores.flatten(0, -2), following.flatten(), reduction="none")
    return each.view(following.shape).mean(-1)


def plain(_count: int) -> Step:
    """Return the step without privacy."""
    model = Recommender()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step(people: Tensors) -> None:
        optimizer.zero_grad()
        loss(model, people).mean().backward()
        optimizer.step()

    return step


def ours(count: int) -> Step:
    """Return the step of `vault.twin.train.private_training`."""
    model = Recommender()
    trained = dict(model.named_parameters())
    optimizer = SummedOptimizer(torch.optim.SGD(trained.values(), lr=RATE), **_noise(count))

    def step(people: Tensors) -> None:
        for name, value in clipped_sums(model, loss, people, CLIP).items():
            trained[name].grad = value
        optimizer.step()
        optimizer.zero_grad()

    return step


def hooks(count: int) -> Step:
    """Return the step with each person's gradient kept by Opacus's hooks."""
    model = GradSampleModule(Recommender(), loss_reduction="mean")
    optimizer = DPOptimizer(torch.optim.SGD(model.parameters(), lr=RATE), **_noise(count))

    def step(people: Tensors) -> None:
        optimizer.zero_grad()
        loss(model, people).mean().backward()
        optimizer.step()

    return step


class _EachPerson(nn.Module):
    """The loss as Opacus's ghost clipping asks for it: one value a person, or its mean."""

    reduction = "mean"

    def forward(self, scores: Tensor, following: Tensor) -> Tensor:
        each = nn.functional.cross_entropy(scores.flatten(0, -2), following.flatten(), reduction="none")
        people = each.view(following.shape).mean(-1)
        return people if self.reduction == "none" else people.mean()


def ghost(count: int) -> Step:
    """Return the step with norms by Opacus's ghost clipping and a second pass back."""
    model = GradSampleModuleFastGradientClipping(
        Recommender(), max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="mean"
    )
    optimizer = DPOptimizerFastGradientClipping(torch.optim.SGD(model.parameters(), lr=RATE), **_noise(count))
    each = DPLossFastGradientClipping(model, optimizer, _EachPerson(), loss_reduction="mean")

    def step(people: Tensors) -> None:
        optimizer.zero_grad()
        each(model(people["ids"]), people["next"]).backward()
        optimizer.step()

    return step


def vmap(count: int) -> Step:
    """Return the step with each person's gradient by torch.func."""
    model = Recommender()
    trained = dict(model.named_parameters())
    optimizer = DPOptimizer(torch.optim.SGD(trained.values(), lr=RATE), **_noise(count))

    def one(parameters: Tensors, ids: Tensor, following: Tensor) -> Tensor:
        scores = torch.func.functional_call(model, parameters, (ids,))
        return nn.functional.cross_entropy(scores, following)

    gradients = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))

    def step(people: Tensors) -> None:
        values = {name: p.detach() for name, p in trained.items()}
        for name, gradient in gradients(values, people["ids"], people["next"]).items():
            setattr(trained[name], "grad_sample", gradient.detach())  # noqa: B010 -- Opacus's own attribute
        optimizer.step()
        optimizer.zero_grad()

    return step


def _noise(count: int) -> dict[str, Any]:
    return {"noise_multiplier": NOISE, "max_grad_norm": CLIP, "expected_batch_size": count}


WAYS: dict[str, Callable[[int], Step]] = {"plain": plain, "ours": ours, "hooks": hooks, "ghost": ghost, "vmap": vmap}


def resident_bytes(field: str) -> int:
    """Return a line of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _added(way: str, count: int, answer: Any) -> None:
    torch.set_num_threads(1)
    step, people = WAYS[way](count), people_of(count)
    step({name: column[:2] for name, column in people.items()})
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step(people)
    step(people)
    answer.send(resident_bytes("VmHWM") - before)


def added_bytes(way: str, count: int) -> int:
    """Return what two steps add at the peak to the memory of a child of their own."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_added, args=(way, count, there))
    child.start()
    there.close()
    found: int = here.recv()
    child.join()
    return found


def step_times_s(count: int, rounds: int) -> dict[str, list[float]]:
    """Return each way's CPU seconds a step, all interleaved, after a step to warm up."""
    steps, people = {name: way(count) for name, way in WAYS.items()}, people_of(count)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            started_s = time.process_time()
            step(people)
            if turn:
                taken[name].append(time.process_time() - started_s)
        print(f"batch {count}, round {turn} of {rounds}", file=sys.stderr, flush=True)
    return taken


def measure(*, quick: bool) -> dict[str, Any]:
    """Run every part and return the figures."""
    torch.set_num_threads(1)
    memory = {
        count: {way: statistics.median(added_bytes(way, count) for _ in range(5)) for way in ("plain", "ours", "hooks")}
        for count in BATCHES
    }
    figures: dict[str, Any] = {}
    for count in BATCHES:
        taken = step_times_s(count, 3 if quick else 15)
        ratios = {
            f"ratio_{name}": round(statistics.median(map(lambda a, b: a / b, taken[name], taken["plain"])), 2)
            for name in WAYS
            if name != "plain"
        }
        figures[str(count)] = {
            "plain_samples_per_s": round(count / statistics.median(taken["plain"])),
            **ratios,
            **{
                f"memory_ratio_{name}": round(memory[count][name] / memory[count]["plain"], 2)
                for name in ("ours", "hooks")
            },
            "plain_memory_mb": round(memory[count]["plain"] / 1e6, 1),
        }
    return {"batch": figures}


def main() -> None:
    """Print the figures as a table, or with --json as one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    figures = measure(quick=options.quick)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for count, found in figures["batch"].items():
        for key, value in found.items():
            print(f"{count:>5} {key:24} {value}")


if __name__ == "__main__":
    main()
