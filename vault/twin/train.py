"""Training a backbone: every number that leaves is a person-level differentially private release.

One sample is one person: all their months together, averaged into one loss, clipped to one vector.
People are drawn by Poisson sampling; a step that draws nobody still adds noise and is charged.
Noise and sampling come from cryptographic generators. Attacks on the floating
point of gradients are out of scope; popularity, habits and certificate are released in integers.

Source: Abadi et al., "Deep Learning with Differential Privacy" (2016); Opacus.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from opacus.optimizers.ddpoptimizer_fast_gradient_clipping import DistributedDPOptimizerFastGradientClipping
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from torch import Tensor, nn

from vault.errors import VaultError
from vault.imprint.features import Cadence, FeatureMap
from vault.imprint.lens import make_lens
from vault.proof.charge import ORDERS, Charge, People
from vault.twin.bookkeeping import PeopleLoss, Tensors, UnsupportedModel, clipped_sums, verify_supported
from vault.twin.habits import HABITS_CHARGE, POPULARITY_CHARGE, release_habits
from vault.twin.reader import MAX_MONTHS, START, Backbone, Months, Reader

Integers: TypeAlias = npt.NDArray[np.int64]
Loss: TypeAlias = Callable[[Tensors, Tensors], Tensor]

DELTA_INVERSE: Final = 1_000_000
MAX_COHORT: Final = DELTA_INVERSE // 10

_PEOPLE_AT_ONCE: Final = 64


class CohortTooSmall(VaultError):
    """Too few or too many people to train under the published delta."""

    slug = "cohort-size"
    title = "Cohort cannot be trained on"
    status = 422


@dataclass(frozen=True, slots=True)
class Descent:
    """Settings of one private descent: public constants.

    Args:
        noise_multiplier: Noise standard deviation over `clip`.
        sample_rate: Probability that a step reads a person.
        steps: Number of steps.
        clip: L2 norm that one person's gradient may have.
        learning_rate: Factor on the noisy mean gradient.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    clip: float = 1.0
    learning_rate: float = 0.1

    def charge(self) -> Charge:
        """Return what the descent costs each person it may have read."""
        return Charge(
            "training", People.TRAINED, round(self.noise_multiplier * 1e6), round(self.sample_rate * 1e6), self.steps
        )


DESCENT: Final = Descent(noise_multiplier=6.0, sample_rate=0.2, steps=40)


@dataclass(frozen=True, eq=False)
class PersonMonths:
    """The training data: one record for each person and month, in any order.

    Args:
        person: int64[R], equal for all records of one person.
        month: int64[R] month numbers (`vault.twin.infer.month_number`).
        rows: int64[R, K] released imprint rows, in quantised units; all under the same map.
        days: int64[R]: days of the month with a trace.
        chosen: int64[R, K - 1]: on how many of them each code occurred.
        sums: int64[R, K]: the private sum of their day vectors.
        sigma: int64[R] noise of the rows, in quantised units.
        worth: float64[R] for daily rows: `rows` are then levels on the first of the month, each worth so many
            months, and each read by itself (`vault.twin.shown`). None for monthly rows.
        projected: int64[R, directions + 1] the same of rows that were made through a lens; None where there is none.
        projected_sigma: int64[R].
        projected_worth: float64[R].
    """

    person: Integers
    month: Integers
    rows: Integers
    days: Integers
    chosen: Integers
    sums: Integers
    sigma: Integers
    worth: npt.NDArray[np.float64] | None = None
    projected: Integers | None = None
    projected_sigma: Integers | None = None
    projected_worth: npt.NDArray[np.float64] | None = None

    def of(self, people: npt.NDArray[np.bool_], everyone: Integers) -> PersonMonths:
        """Return the records of those of `everyone` who are marked."""
        keep = np.isin(self.person, everyone[people])
        return PersonMonths(**{name: column[keep] for name, column in self._columns.items()})

    def grouped(self) -> Tensors:
        """Return `rows`, `sigma`, `month`, `days`, `chosen`, `sums`, `present` and those of the rest that there are, with one index a person."""
        return group_people(self.person, {name: column for name, column in self._columns.items() if name != "person"})

    @property
    def _columns(self) -> dict[str, Any]:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in columns.items() if column is not None}


def group_people(person: Integers, columns: Mapping[str, npt.NDArray[np.generic]]) -> Tensors:
    """Gather records so that one index of the first dimension is one person: the unit of privacy.

    Args:
        person: int64[R].
        columns: Each [R, ...].

    Returns:
        Each column as [people, records, ...], padded with zeros, and `present` [people, records]. Of a
        person with more than `MAX_MONTHS` records the last ones are kept.
    """
    names, index = np.unique(person, return_inverse=True)
    order = np.argsort(index, kind="stable")
    index = index[order]
    counts = np.bincount(index, minlength=len(names))
    back = np.repeat(np.cumsum(counts), counts) - np.arange(len(order))  # 1 for a person's last record
    width = min(int(counts.max(initial=0)), MAX_MONTHS)
    keep = back <= width
    at = (index[keep], width - back[keep])
    grouped = {"present": torch.zeros(len(names), width)}
    grouped["present"][at] = 1.0
    for name, column in columns.items():
        grouped[name] = torch.zeros(len(names), width, *column.shape[1:])
        grouped[name][at] = torch.from_numpy(column[order[keep]]).float()
    return grouped


def gaussian(shape: torch.Size) -> Tensor:
    """Draw standard normal noise by Box-Muller from AES-256 in counter mode under a fresh random key."""
    pairs = -(-shape.numel() // 2)
    stream = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    bits = np.frombuffer(stream.update(bytes(16 * pairs)), dtype=np.uint64).reshape(2, pairs) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((bits[0] + 0.5) * 2.0**-53))
    angle = 2.0 * np.pi * (bits[1] * 2.0**-53)
    noise = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: shape.numel()]
    return torch.from_numpy(noise).reshape(shape)


def poisson_sample(people: int, sample_rate: float) -> Tensor:
    """Return the indices of the people that a step reads: each by an independent cryptographic coin."""
    coins = np.frombuffer(os.urandom(8 * people), dtype=np.uint64)
    return torch.from_numpy(np.flatnonzero((coins >> np.uint64(11)) * 2.0**-53 < sample_rate))


class _CryptographicNoise:
    """Noise for an optimizer of Opacus, whose own `secure_mode` cannot be installed."""

    params: Iterable[Any]
    noise_multiplier: float
    max_grad_norm: float

    def add_noise(self) -> None:
        """Add noise of `noise_multiplier * max_grad_norm` to the sum of clipped gradients."""
        for p in self.params:
            noise = gaussian(p.summed_grad.shape) * self.noise_multiplier * self.max_grad_norm
            p.grad = (p.summed_grad + noise).to(p.dtype).view_as(p)


class PrivateOptimizer(_CryptographicNoise, DPOptimizer):  # type: ignore[misc]  # Opacus carries no types
    """Opacus's optimizer: clips the gradient of each person (`grad_sample`), sums them and adds noise."""


class SummedOptimizer(_CryptographicNoise, DPOptimizerFastGradientClipping):  # type: ignore[misc]  # as above
    """Opacus's optimizer for sums that are clipped already (`grad`): adds noise."""


class SharedOptimizer(DistributedDPOptimizerFastGradientClipping, SummedOptimizer):  # type: ignore[misc]  # as above
    """The same for several processes: the first adds noise for all, then they add up."""


def person_gradients(loss: Loss, parameters: Tensors, people: Tensors) -> Tensors:
    """Return each person's gradient, [people, *parameter], for any number of people, none included."""
    if not len(people["present"]):
        return {name: torch.zeros(0, *value.shape) for name, value in parameters.items()}
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0), chunk_size=_PEOPLE_AT_ONCE)
    # A gradient that is not a number has no norm to clip: such a person would move the model without bound.
    return {name: gradient.nan_to_num(0.0, 0.0, 0.0) for name, gradient in each(parameters, people).items()}


def private_descent(
    loss: Loss,
    start: Tensors,
    people: Tensors,
    descent: Descent,
    expected_people: float,
    *,
    optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] | None = None,
) -> Tensors:
    """Minimise the mean over people of a loss, by DP-SGD.

    Args:
        loss: Of (parameters, one person); reads nothing else that is private.
        start: Parameters, public or released.
        people: Tensors [people, records, ...] from `group_people`.
        descent: Settings.
        expected_people: Public or released number of people that the sum of gradients is divided by,
            together with the sample rate.
        optimizer: Makes what follows the noisy gradient, over the parameters in the order of `start`; plain descent
            by default.

    Returns:
        The parameters after the last step.

    Guarantees: with one person added or removed, the output is that of `descent.steps` Poisson-subsampled
        Gaussian mechanisms at `descent.noise_multiplier`, whatever the data; the charge is `descent.charge()`.
    """
    parameters = {name: torch.nn.Parameter(value.detach().clone()) for name, value in start.items()}
    private = PrivateOptimizer(
        optimizer(parameters.values()) if optimizer else torch.optim.SGD(parameters.values(), lr=descent.learning_rate),
        noise_multiplier=descent.noise_multiplier,
        max_grad_norm=descent.clip,
        expected_batch_size=expected_people * descent.sample_rate,
    )
    for _ in range(descent.steps):
        drawn = poisson_sample(len(people["present"]), descent.sample_rate)
        batch = {name: column[drawn] for name, column in people.items()}
        values = {name: parameter.detach() for name, parameter in parameters.items()}
        for name, gradient in person_gradients(loss, values, batch).items():
            setattr(parameters[name], "grad_sample", gradient.detach())  # noqa: B010 -- Opacus's own attribute
        private.step()
        private.zero_grad()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def private_training(
    model: nn.Module,
    loss: PeopleLoss,
    people: Tensors,
    descent: Descent,
    expected_people: float,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    people_at_once: int = 1_024,
) -> None:
    """Train a network in place, by DP-SGD with book-keeping.

    Within a `torch.distributed` group each process draws from its own people; all start from the first one's
    parameters and end with equal ones.

    Args:
        model: A network of `nn.Linear` and `nn.Embedding`, with public or released parameters.
        loss: Of (model, people), one value a person.
        people: Tensors [people, examples, ...]; each person in one process only.
        descent: Settings.
        expected_people: As in `private_descent`, of all processes together.
        optimizer: What follows the noisy gradient, over the model's parameters; plain descent by default.
        people_at_once: How many people's activations are held at a time; the sums are the same.

    Raises:
        UnsupportedModel: Book-keeping does not see every part of the gradient.

    Guarantees: those of `private_descent`.
    """
    verify_supported(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shared = torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if shared else 1
    private = (SharedOptimizer if shared else SummedOptimizer)(
        optimizer or torch.optim.SGD(trained.values(), lr=descent.learning_rate),
        noise_multiplier=descent.noise_multiplier,
        max_grad_norm=descent.clip,
        expected_batch_size=expected_people * descent.sample_rate / processes,
    )
    if {id(p) for p in private.params} != {id(p) for p in trained.values()}:
        raise UnsupportedModel("The optimizer moves other parameters than those that are clipped.")
    if shared:
        for parameter in model.parameters():
            torch.distributed.broadcast(parameter.data, src=0)
    count = len(next(iter(people.values())))
    for _ in range(descent.steps):
        drawn = poisson_sample(count, descent.sample_rate)
        sums = {name: torch.zeros_like(p) for name, p in trained.items()}
        for some in torch.split(drawn, people_at_once):
            batch = {name: column[some] for name, column in people.items()}
            for name, value in clipped_sums(model, loss, batch, descent.clip).items():
                sums[name] += value
        for name, value in sums.items():
            trained[name].grad = value
        private.step()
        private.zero_grad()


def read_odds(reader: Reader, scalars: Tensor, person: Tensors) -> Tensor:
    """Return log-odds [..., M, K - 1] of each of a person's months, from what was released before it.

    Args:
        reader: Of the rows' map.
        scalars: [10] in the order of `START`.
        person: Columns [..., M] of `PersonMonths.grouped`; for one person, or with a leading dimension for several.
    """
    month, worth = person["month"], person.get("worth")
    if worth is None:
        return reader.log_odds(scalars, Months(person["rows"], person["sigma"], month, person["present"]), month)[0]
    # A level says all that the rows before it say: each month reads its own, as served answers do.
    seen = _levels(person, person["rows"], person["sigma"], worth)
    projected = None
    if "projected" in person:
        projected = _levels(person, person["projected"], person["projected_sigma"], person["projected_worth"])
    return reader.log_odds(scalars, seen, month.unsqueeze(-1), projected)[0].squeeze(-2)


def _levels(person: Tensors, values: Tensor, sigma: Tensor, worth: Tensor) -> Months:
    before = (person["month"] - 1).unsqueeze(-1)
    return Months(values.unsqueeze(-2), sigma.unsqueeze(-1), before, (person["present"] * worth).unsqueeze(-1))


def reading_loss(reader: Reader) -> Loss:
    """Return a person's mean negative log-likelihood: whether each code occurs on each day with a trace.

    A month is predicted from the rows of earlier months only, as it would have been asked about.
    """

    def loss(parameters: Tensors, person: Tensors) -> Tensor:
        odds = read_odds(reader, parameters["scalars"], person)
        days = person["days"].unsqueeze(-1)
        missed = (torch.nn.functional.softplus(odds) * days - odds * person["chosen"]).sum()
        return missed / days.sum().clamp(min=1.0)

    return loss


def train(
    records: PersonMonths, feature_map: FeatureMap, known: Backbone | None = None
) -> tuple[Backbone, float, tuple[Charge, ...]]:
    """Train a backbone on a cohort.

    Args:
        records: Everything of the people trained on.
        feature_map: The map of their rows.
        known: The backbone whose lens rows are made through since; its axes and its lens are kept.

    Returns:
        The backbone, the noisy number of people, and what each of them is charged.

    Raises:
        CohortTooSmall: Nobody to learn from, or more people than the published delta allows.
    """
    if not 1 <= len(np.unique(records.person)) <= MAX_COHORT:
        raise CohortTooSmall(f"A cohort has 1 to {MAX_COHORT} people.")
    people = records.grouped()
    found = release_habits(people, feature_map, None if known is None else known.axes)
    scalars = np.array(list(START.values()), dtype=np.float32)
    if known is not None:
        lens = known.lens
    else:
        daily = feature_map.cadence is Cadence.DAILY
        lens = make_lens(found.popularity, found.axes, found.variance) if daily else None
    backbone = Backbone(feature_map.digest, scalars, found.popularity, found.axes, found.variance, lens)
    loss = reading_loss(Reader.of(feature_map, backbone))
    del people["sums"]  # the descent reads how often codes occurred, and not these
    learned = private_descent(loss, {"scalars": torch.from_numpy(scalars)}, people, DESCENT, found.people)
    backbone = replace(backbone, scalars=learned["scalars"].numpy().astype(np.float32))
    return backbone, found.people, (POPULARITY_CHARGE, HABITS_CHARGE, DESCENT.charge())


def accounted_epsilon(charges: tuple[Charge, ...]) -> float:
    """Return Opacus's RDP epsilon at delta = 1 / `DELTA_INVERSE`; the worse of the people trained on and held out."""
    worst = 0.0
    for people in People:
        accountant = RDPAccountant()
        for charge in charges:
            if charge.people is people:
                accountant.history.append(
                    (charge.noise_multiplier_ppm / 1e6, charge.sample_rate_ppm / 1e6, charge.steps)
                )
        if accountant.history:
            worst = max(worst, float(accountant.get_epsilon(delta=1 / DELTA_INVERSE, alphas=list(ORDERS))))
    return worst
