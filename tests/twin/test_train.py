"""Person-level privacy of the trainer, against Opacus's own hooks and another accountant."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from vault.imprint.features import FeatureMap
from vault.proof.charge import Charge, People, epsilon_of
from vault.twin.reader import START, Reader, closed_form
from vault.twin.train import (
    DESCENT,
    CohortTooSmall,
    Descent,
    PersonMonths,
    accounted_epsilon,
    gaussian,
    group_people,
    person_gradients,
    poisson_sample,
    private_descent,
    reading_loss,
    train,
)

MakeCohort = Callable[..., PersonMonths]
QUIET = Descent(noise_multiplier=1e-7, sample_rate=1.0, steps=1, learning_rate=1.0)


def test_clipped_person_sums_equal_opacus_hooks() -> None:
    torch.manual_seed(1)
    layer = torch.nn.Linear(5, 3)
    x, y = torch.randn(7, 4, 5), torch.randn(7, 4, 3)
    x[3] *= 50  # one person far above the clip

    def loss(parameters: dict[str, torch.Tensor], person: dict[str, torch.Tensor]) -> torch.Tensor:
        out = person["x"] @ parameters["weight"].T + parameters["bias"]
        return ((out - person["y"]) ** 2).mean()

    start = {name: value.detach().clone() for name, value in layer.named_parameters()}
    moved = private_descent(loss, start, {"x": x, "y": y, "present": torch.ones(7, 4)}, QUIET, 1.0)

    # register_full_backward_hook: the oracle's hooks warn about an input without gradient
    x.requires_grad_()
    wrapped = GradSampleModule(layer, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=1
    )
    ((wrapped(x) - y) ** 2).mean((1, 2)).sum().backward()
    optimizer.step()
    for name, value in layer.named_parameters():
        torch.testing.assert_close(moved[name], value.detach(), atol=1e-4, rtol=1e-4)


def test_a_person_with_a_thousand_records_moves_the_model_no_further_than_the_clip() -> None:
    def loss(parameters: dict[str, torch.Tensor], person: dict[str, torch.Tensor]) -> torch.Tensor:
        return (parameters["w"] * person["x"]).sum()

    person = np.repeat([0, 1], [1_000, 1])
    people = group_people(person, {"x": np.full((1_001, 2), 1e6)})
    moved = private_descent(loss, {"w": torch.zeros(2)}, people, QUIET, 1.0)["w"]
    assert moved.norm().item() <= 2 * QUIET.clip + 1e-4


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_no_value_lets_a_person_escape_the_clip(poison: float) -> None:
    def loss(parameters: dict[str, torch.Tensor], person: dict[str, torch.Tensor]) -> torch.Tensor:
        return (parameters["w"] * person["x"]).sum()

    people = group_people(np.array([0, 1]), {"x": np.array([[poison, 1.0], [1.0, 1.0]])})
    moved = private_descent(loss, {"w": torch.zeros(2)}, people, QUIET, 1.0)["w"]
    assert torch.isfinite(moved).all()
    assert moved.norm().item() <= 2 * QUIET.clip + 1e-4


def test_an_empty_batch_still_adds_noise() -> None:
    def loss(parameters: dict[str, torch.Tensor], person: dict[str, torch.Tensor]) -> torch.Tensor:
        return (parameters["w"] * person["x"].sum()).sum()

    nobody = group_people(np.zeros(0, dtype=np.int64), {"x": np.zeros((0, 1))})
    loud = Descent(noise_multiplier=2.0, sample_rate=0.5, steps=3, learning_rate=1.0)
    moved = private_descent(loss, {"w": torch.zeros(4_000)}, nobody, loud, 1.0)["w"]
    assert moved.std().item() == pytest.approx(2.0 / 0.5 * math.sqrt(3), rel=0.1)


def test_a_person_is_one_index_whatever_the_order_of_the_records() -> None:
    person = np.array([7, 3, 7, 3, 7])
    people = group_people(person, {"x": np.array([1, 2, 3, 4, 5])})
    assert people["x"].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert people["present"].tolist() == [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


def test_accountants_agree() -> None:
    charges = (
        Charge("popularity", People.TRAINED, 2_096_000, 1_000_000, 1),
        DESCENT.charge(),
        Charge("certificate", People.HELD_OUT, 5_000_000, 1_000_000, 1),
    )
    theirs = RdpAccountant(list(range(2, 257)))
    theirs.compose(GaussianDpEvent(2.096))
    theirs.compose(PoissonSampledDpEvent(DESCENT.sample_rate, GaussianDpEvent(DESCENT.noise_multiplier)), DESCENT.steps)
    expected = theirs.get_epsilon(1e-6)
    assert accounted_epsilon(charges) == pytest.approx(expected, abs=1e-5)
    assert epsilon_of(charges, 1e-6) == pytest.approx(expected, abs=1e-5)


def test_noise_is_standard_normal_and_sampling_is_poisson() -> None:
    noise = gaussian(torch.Size([200_000]))
    assert abs(noise.mean().item()) < 0.015
    assert noise.std().item() == pytest.approx(1.0, abs=0.01)
    assert (noise.abs() > 3).double().mean().item() == pytest.approx(0.0027, abs=0.0007)
    sizes = [len(poisson_sample(100, 0.2)) for _ in range(400)]
    assert np.mean(sizes) == pytest.approx(20, abs=1)
    assert np.var(sizes) == pytest.approx(16, rel=0.4)


def test_the_loss_never_reads_the_month_it_predicts(make_cohort: MakeCohort, retail: FeatureMap) -> None:
    cohort = make_cohort(1)
    loss = reading_loss(Reader.of(retail, closed_form(retail)))
    parameters = {"scalars": torch.tensor(list(START.values()))}
    person = {name: column[0] for name, column in cohort.grouped().items()}

    def value_with(at: int) -> float:
        rows = person["rows"].clone()
        rows[at] += 1e4
        return float(loss(parameters, {**person, "rows": rows}))

    assert value_with(-1) == float(loss(parameters, person))
    assert value_with(0) != float(loss(parameters, person))


def test_gradients_of_people_do_not_depend_on_each_other(make_cohort: MakeCohort, retail: FeatureMap) -> None:
    cohort = make_cohort(5)
    loss = reading_loss(Reader.of(retail, closed_form(retail)))
    people, parameters = cohort.grouped(), {"scalars": torch.tensor(list(START.values()))}
    together = person_gradients(loss, parameters, people)["scalars"]
    alone = person_gradients(loss, parameters, {name: value[2:3] for name, value in people.items()})["scalars"]
    torch.testing.assert_close(together[2:3], alone, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(together).all()


def test_nobody_to_learn_from_is_refused(make_cohort: MakeCohort, retail: FeatureMap) -> None:
    cohort = make_cohort(2)
    with pytest.raises(CohortTooSmall):
        train(cohort.of(np.array([False, False]), np.array([0, 1])), retail)
