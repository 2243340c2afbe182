"""The networks of the news site's day: scores of each next page from the pages before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks._msnbc import PAGES
from vault.twin.bookkeeping import Tensors

Floats = npt.NDArray[np.float64]

WINDOW = 4
HIDDEN = 64
_ONE_HOT = torch.cat([torch.zeros(1, PAGES), torch.eye(PAGES)])


class Network(nn.Module):
    """Two hidden layers, and one that skips them, over the last pages, how often each was seen, and how many.

    Args:
        start: float32[contexts, PAGES] logarithms that the scores start from, released or public; none: all alike.
        order: How many pages make up a context.
    """

    def __init__(self, start: Tensor | None = None, order: int = 0) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("start", torch.zeros(1, PAGES) if start is None else start)
        self.first, self.second = nn.Linear((WINDOW + 1) * PAGES + 2, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.direct, self.scores = nn.Linear((WINDOW + 1) * PAGES + 2, PAGES), nn.Linear(HIDDEN, PAGES)
        for layer in (self.direct, self.scores):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, pages: Tensor) -> Tensor:
        """Return scores [people, views, PAGES] of each page from those before it."""
        seen = _ONE_HOT[pages]
        people, views, _ = seen.shape
        padded = torch.cat([torch.zeros(people, WINDOW, PAGES), seen], 1)
        last = [padded[:, WINDOW - back : WINDOW - back + views] for back in range(1, WINDOW + 1)]
        often = torch.log1p(seen.cumsum(1) - seen)
        at = torch.arange(views).float().view(1, views, 1).expand(people, views, 1)
        facts = torch.cat([*last, often, (at == 0).float(), torch.log1p(at) / 3], 2)
        learned = self.direct(facts) + self.scores(torch.relu(self.second(torch.relu(self.first(facts)))))
        out: Tensor = self.start[contexts(pages, self.order)] + learned
        return out


def contexts(pages: Tensor, order: int) -> Tensor:
    """Return [people, views]: the row of `chances` for the `order` pages before each."""
    padded, found = nn.functional.pad(pages, (order, 0)), torch.zeros_like(pages)
    for back in range(order):
        found = found * (PAGES + 1) + padded[:, back : back + pages.shape[1]]
    return found


class Recurrent(nn.Module):
    """The usual network for sequences, without privacy."""

    def __init__(self) -> None:
        super().__init__()
        self.pages, self.memory = nn.Embedding(PAGES + 1, 32), nn.GRU(32, 96, batch_first=True)
        self.scores = nn.Linear(96, PAGES)

    def forward(self, pages: Tensor) -> Tensor:
        """Return scores [people, views, PAGES] of each page from those before it."""
        before = nn.functional.pad(pages, (1, 0))[:, :-1]
        out: Tensor = self.scores(self.memory(self.pages(before))[0])
        return out


def each_missed(model: nn.Module, pages: Tensor) -> tuple[Tensor, Tensor]:
    """Return negative log-likelihoods [people, views], 0 where nothing was seen, and where something was."""
    pages = pages[:, : int((pages > 0).sum(1).max())].long()
    scores, seen = model(pages), pages > 0
    missed = nn.functional.cross_entropy(scores.flatten(0, 1), (pages - 1).clamp(min=0).flatten(), reduction="none")
    return missed.view(pages.shape) * seen, seen


def person_loss(model: nn.Module, people: Tensors) -> Tensor:
    """Return each person's sum over pages: a constant times the mean over the 20 places that anybody has."""
    return each_missed(model, people["pages"])[0].sum(1)


def pieces(pages: Tensor, size: int = 1_000) -> Iterator[Tensor]:
    """Yield people in order, a few at a time."""
    yield from torch.split(pages, size)


@torch.no_grad()
def tested(model: nn.Module, pages: Tensor) -> Floats:
    """Return [pages seen] negative log-likelihoods, people in order and each person's pages in order."""
    found = []
    for some in pieces(pages):
        missed, seen = each_missed(model, some)
        found.append(missed[seen].double().numpy())
    return np.concatenate(found)
