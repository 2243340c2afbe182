"""Book-keeping: each person's gradient clipped and summed after one backward pass, without being built.

A layer's gradient is made of what went into it and of the loss's derivative by what came out. One pass
back to the outputs gives the latter for everybody; norms follow from products of the two, and the
clipped sum is one matrix product with each person's derivatives scaled by their own factor.

Source: Bu, Wang, Zha, Karypis, "Differentially Private Optimization on Large Model at Small Cost" (2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

Tensors: TypeAlias = dict[str, Tensor]
PeopleLoss: TypeAlias = Callable[[nn.Module, Tensors], Tensor]

_ROUNDING: Final = 2.0**-24  # half a unit in the last place of float32
_SMALLEST: Final = 1e-6
_PEOPLE_AT_ONCE: Final = 32


class UnsupportedModel(TypeError):
    """A model of which book-keeping would miss a part of somebody's gradient: a programmer's error."""


@dataclass(frozen=True, eq=False)
class _Calls:
    """All calls of one layer in one pass: it may be called again, as in a recurrence.

    Args:
        layer: The layer.
        into: Linear: float[people, examples, in]. Embedding: int[people, examples].
        by: float[people, examples, out], the loss's derivative by what came out.
    """

    layer: nn.Linear | nn.Embedding
    into: Tensor
    by: Tensor

    def squared_norms(self) -> Tensor:
        """Return [people]: an upper bound of each gradient's squared norm, tight but for rounding.

        A few people at a time, so that what is computed on the way stays in the processor's cache.
        """
        pieces = zip(*(torch.split(part, _PEOPLE_AT_ONCE) for part in (self.into, self.by)), strict=True)
        return torch.cat([self._squared_norms(into, by) for into, by in pieces])

    def _squared_norms(self, into: Tensor, by: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Embedding):
            products = by @ by.mT
            lengths, width = _lengths(products).sum(1), by.shape[2]
            squares = products.masked_fill_(into.unsqueeze(2) != into.unsqueeze(1), 0.0).sum((1, 2))
        elif into.shape[1] ** 2 <= into.shape[2] * by.shape[2]:  # then cheaper than to build the gradient
            width = into.shape[2] + by.shape[2]
            ours, theirs = into @ into.mT, by @ by.mT
            if self.layer.bias is not None:
                ours += 1.0  # a bias is the weight of an input that is always 1
            lengths = (_lengths(ours) * _lengths(theirs)).sum(1)
            squares = (ours * theirs).sum((1, 2))
        else:
            width = into.shape[2] + by.shape[2]
            squares = (by.mT @ into).square().sum((1, 2))
            longer = into.square().sum(2)
            if self.layer.bias is not None:
                squares = squares + by.sum(1).square().sum(1)
                longer = longer + 1.0
            lengths = (longer.sqrt() * by.norm(dim=2)).sum(1)
        # Examples that cancel leave rounding errors as long as they are themselves: counted in, never ignored.
        return squares.clamp(min=0.0) + _ROUNDING * (width + into.shape[1]) * lengths.square()

    def sums(self, factors: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the sum over people of each parameter's gradient times a person's factor; factor 0 reads nothing."""
        into, by, layer = self.into, self.by, self.layer
        if not factors.all():
            kept = factors > 0
            into, by, factors = into[kept], by[kept], factors[kept]
        scale = factors[:, None, None]
        if isinstance(layer, nn.Embedding):
            table = torch.zeros_like(layer.weight)
            return [(layer.weight, table.index_add_(0, into.flatten(), (by * scale).flatten(0, 1)))]
        flat = by.flatten(0, 1)
        found: list[tuple[Tensor, Tensor]] = [(layer.weight, flat.T @ (into * scale).flatten(0, 1))]
        if layer.bias is not None:
            found.append((layer.bias, flat.T @ factors.repeat_interleave(by.shape[1])))
        return found


def _lengths(products: Tensor) -> Tensor:
    return products.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()


def verify_supported(model: nn.Module) -> None:
    """Refuse a model that has gradients which book-keeping does not see.

    Raises:
        UnsupportedModel: A trained parameter is tied or belongs to no plain `nn.Linear` or `nn.Embedding`; a
            layer normalises over people; an embedding pads, renormalises, scales by frequency or is sparse.
    """
    named = [p for _, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]
    if len(set(named)) != len(named):
        raise UnsupportedModel("A parameter is tied: the product of its two gradients would be missing in the norm.")
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if own and type(module) not in {nn.Linear, nn.Embedding}:
            raise UnsupportedModel(f"{name or 'The model'} trains parameters; only Linear and Embedding may.")
        if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001 -- the one base of all of them
            raise UnsupportedModel(f"{name} normalises over people, so one person's gradient would hold another's.")
        if isinstance(module, nn.Embedding) and (
            module.padding_idx is not None or module.max_norm or module.scale_grad_by_freq or module.sparse
        ):
            raise UnsupportedModel(f"{name} has an option that changes its gradient; leave all at their defaults.")


def clipped_sums(model: nn.Module, loss: PeopleLoss, people: Tensors, clip: float) -> Tensors:
    """Return the sum over people of their gradients, each scaled to norm `clip` if longer.

    Args:
        model: Accepted by `verify_supported`.
        loss: Of (model, people), [people]; what it computes for one person reads no other. Layers take
            inputs [people, ..., features] and may be called several times.
        people: Tensors [people, ...].
        clip: L2 norm over all parameters together.

    Returns:
        By parameter name, for every trained parameter, zeros if nobody or nothing reached it.

    Raises:
        UnsupportedModel: A parameter was used outside its layer, or a layer's output was overwritten in place.

    Guarantees: adding or removing one person moves the result by at most `clip`, whatever their values: a
        person whose gradient is not finite adds nothing.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums: dict[Tensor, Tensor] = {}
    if len(next(iter(people.values()))):
        with torch.no_grad():
            calls = _calls(model, loss, people)
            norms = torch.stack([call.squared_norms() for call in calls]).sum(0).sqrt()
            factors = (clip / (norms + _SMALLEST)).clamp(max=1.0)
            factors = torch.where(norms.isfinite(), factors, 0.0)
            sums = dict(found for call in calls for found in call.sums(factors))
    return {name: sums[p] if p in sums else torch.zeros_like(p) for name, p in trained.items()}


@torch.enable_grad()
def _calls(model: nn.Module, loss: PeopleLoss, people: Tensors) -> list[_Calls]:
    """Run forwards and back to the layers' outputs."""
    seen: list[tuple[nn.Linear | nn.Embedding, Tensor, GradientEdge]] = []

    def record(layer: nn.Linear | nn.Embedding, into: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append((layer, into[0].detach(), get_gradient_edge(out)))  # the output itself need not be kept

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding) and module.weight.requires_grad:
                hooks.callback(module.register_forward_hook(record).remove)
        total = loss(model, people).sum()
    edges = [edge for _, _, edge in seen]
    derivatives: Sequence[Tensor | None] = torch.autograd.grad(total, edges, allow_unused=True)
    reached = [(layer, into, by) for (layer, into, _), by in zip(seen, derivatives, strict=True) if by is not None]
    _verify_uses(total, Counter(p for layer, _, _ in reached for p in layer.parameters() if p.requires_grad))
    count = len(next(iter(people.values())))
    grouped: dict[nn.Linear | nn.Embedding, list[tuple[Tensor, Tensor]]] = {}
    for layer, into, by in reached:
        flat = into.reshape(count, -1, *([] if isinstance(layer, nn.Embedding) else [into.shape[-1]]))
        grouped.setdefault(layer, []).append((flat, by.reshape(count, -1, by.shape[-1])))
    return [_Calls(layer, *map(_joined, zip(*parts, strict=True))) for layer, parts in grouped.items()]


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _verify_uses(total: Tensor, expected: Counter[nn.Parameter]) -> None:
    """Refuse a parameter that the loss reads in more places than its layer was called in."""
    found: Counter[nn.Parameter] = Counter()
    waiting = [total.grad_fn]
    known = set(waiting)
    while waiting:
        node = waiting.pop()
        for after, _ in node.next_functions if node is not None else ():
            leaf = getattr(after, "variable", None)
            if leaf is not None:
                found[leaf] += 1
            elif after not in known:
                known.add(after)
                waiting.append(after)
    if found != expected:
        raise UnsupportedModel("A parameter is used outside the calls of its layer, where its gradient is not seen.")
