"""Book-keeping against Opacus's hooks, and against people who try to escape the clip."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from vault.twin.bookkeeping import Tensors, UnsupportedModel, clipped_sums
from vault.twin.train import Descent, private_training

PEOPLE, CLIP = 7, 0.5


class Pooled(nn.Module):
    """An embedding of what was seen, a mean over it, and a head: the shape of most recommenders."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.head = nn.Embedding(11, 6), nn.Linear(6, 5)

    def forward(self, ids: Tensor) -> Tensor:
        """Return [people, examples, 5] from ids [people, examples, items]."""
        out: Tensor = self.head(self.items(ids).mean(2))
        return out


class Recurrent(nn.Module):
    """A layer called once for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.step, self.head = nn.Embedding(11, 4), nn.Linear(10, 6), nn.Linear(6, 5, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return [people, examples, 5] from ids [people, examples, items]."""
        seen, state, out = self.items(ids).mean(2), torch.zeros(len(ids), 6), []
        for at in range(ids.shape[1]):
            state = torch.tanh(self.step(torch.cat([seen[:, at], state], 1)))
            out.append(self.head(state))
        return torch.stack(out, 1)


class Wide(nn.Module):
    """Few numbers in and out and many examples: gradients cheaper than products of examples."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.head = nn.Linear(2, 2), nn.Linear(2, 5)

    def forward(self, ids: Tensor) -> Tensor:
        """Return [people, examples, 5] from ids [people, examples, items]."""
        out: Tensor = self.head(torch.relu(self.narrow(ids[..., :2].float())))
        return out


def _loss(model: nn.Module, people: Tensors) -> Tensor:
    scores = model(people["ids"])
    wrong = nn.functional.cross_entropy(scores.flatten(0, 1), people["next"].flatten(), reduction="none")
    return wrong.view(people["next"].shape).mean(1) * people["weight"]


def _people(examples: int = 4, count: int = PEOPLE) -> Tensors:
    weight = torch.ones(count)
    weight[1:2] = 300.0  # one person far above the clip
    weight[2:3] = 0.01  # one far below
    return {
        "ids": torch.randint(0, 11, (count, examples, 3)),
        "next": torch.randint(0, 5, (count, examples)),
        "weight": weight,
    }


@pytest.mark.filterwarnings("ignore:Full backward hook")  # the oracle's hooks say that ids have no gradient
@pytest.mark.parametrize("build", [Pooled, Recurrent, Wide])
@pytest.mark.parametrize("examples", [1, 4])
def test_clipped_sums_equal_those_of_opacus_hooks(build: Callable[[], nn.Module], examples: int) -> None:
    torch.manual_seed(3)
    model, people = build(), _people(examples)
    ours = clipped_sums(model, _loss, people, CLIP)

    wrapped = GradSampleModule(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=1
    )
    _loss(wrapped, people).sum().backward()
    optimizer.clip_and_accumulate()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.summed_grad, atol=2e-5, rtol=2e-4)
    assert math.hypot(*(value.norm().item() for value in ours.values())) > CLIP


def _norm(sums: Tensors) -> float:
    return math.hypot(*(value.double().norm().item() for value in sums.values()))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
def test_no_value_lets_a_person_escape_the_clip(poison: float) -> None:
    model = nn.Linear(3, 2)
    people = {"x": torch.ones(2, 4, 3), "present": torch.ones(2, 4)}
    people["x"][0, 1, 2] = poison
    sums = clipped_sums(model, lambda m, p: m(p["x"]).square().sum((1, 2)), people, CLIP)
    assert all(value.isfinite().all() for value in sums.values())
    assert _norm(sums) <= 2 * CLIP
    alone = clipped_sums(model, lambda m, p: m(p["x"]).square().sum((1, 2)), {"x": people["x"][1:]}, CLIP)
    if not math.isfinite(poison):
        torch.testing.assert_close(sums, alone)


def test_examples_that_cancel_do_not_hide_a_persons_length() -> None:
    torch.manual_seed(5)
    model = nn.Linear(40, 30)
    x = torch.randn(1, 24, 40) * 1e4
    x[:, 12:] = x[:, :12] * (1 + 1e-7)
    sign = torch.cat([torch.ones(12), -torch.ones(12)])[None, :, None]
    toward = torch.randn(30) * 1e3
    sums = clipped_sums(model, lambda m, p: (m(p["x"]) * sign * toward).sum((1, 2)), {"x": x}, CLIP)
    assert _norm(sums) <= CLIP * 1.001


def test_one_person_with_a_thousand_examples_counts_once() -> None:
    model = nn.Linear(3, 2)
    sums = clipped_sums(model, lambda m, p: m(p["x"]).sum((1, 2)), {"x": torch.full((1, 1000, 3), 1e4)}, CLIP)
    assert _norm(sums) == pytest.approx(CLIP, rel=1e-3)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items, self.head = nn.Embedding(5, 6), nn.Linear(6, 5, bias=False)
        self.head.weight = self.items.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.items(ids[..., 0] % 5))
        return out


class _Borrowed(Pooled):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + self.head.weight.sum()


class _Overwritten(Pooled):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).mul_(2.0)


class _Normalised(Pooled):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids)

    def __init__(self) -> None:
        super().__init__()
        self.over_people = nn.BatchNorm1d(5, affine=False)


class _Free(Pooled):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class _Padded(Pooled):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(11, 6, padding_idx=0)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_Tied, "tied"),
        (_Borrowed, "outside the calls"),
        (_Overwritten, "outside the calls"),
        (_Normalised, "normalises over people"),
        (_Free, "trains parameters"),
        (_Padded, "option"),
    ],
)
def test_a_model_with_gradients_that_would_be_missed_is_refused(build: Callable[[], nn.Module], reason: str) -> None:
    quiet = Descent(noise_multiplier=1.0, sample_rate=1.0, steps=1)
    with pytest.raises(UnsupportedModel, match=reason):
        private_training(build(), _loss, _people(), quiet, 1.0)


def test_an_optimizer_that_moves_something_else_is_refused() -> None:
    model = Pooled()
    only_head = torch.optim.SGD(model.head.parameters(), lr=1.0)
    with pytest.raises(UnsupportedModel, match="other parameters"):
        private_training(model, _loss, _people(), Descent(1.0, 1.0, 1), 1.0, optimizer=only_head)


@pytest.mark.parametrize("count", [0, PEOPLE])
def test_every_step_adds_noise_whoever_was_drawn(count: int) -> None:
    model = nn.Linear(400, 10)
    before = model.weight.detach().clone()
    loud = Descent(noise_multiplier=2.0, sample_rate=1e-9, steps=3, clip=CLIP, learning_rate=1.0)
    private_training(model, lambda m, p: m(p["x"]).sum((1, 2)), {"x": torch.ones(count, 2, 400)}, loud, 1e9)
    moved = model.weight.detach() - before
    assert moved.std().item() == pytest.approx(2.0 * CLIP * math.sqrt(3), rel=0.1)


def test_frozen_layers_are_left_alone_and_trained_ones_still_clipped() -> None:
    model = Pooled()
    model.items.weight.requires_grad_(False)
    sums = clipped_sums(model, _loss, _people(), CLIP)
    assert set(sums) == {"head.weight", "head.bias"}
    assert CLIP < _norm(sums) <= PEOPLE * CLIP


def test_a_layer_that_nothing_reached_still_gets_noise() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(50, 50)})
    before = model["unused"].weight.detach().clone()
    private_training(
        model, lambda m, p: m["used"](p["x"]).sum((1, 2)), {"x": torch.ones(3, 1, 2)}, Descent(1.0, 1.0, 1), 3.0
    )
    assert (model["unused"].weight - before).std().item() > 0
