from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from training.checkpoint import Checkpoint, CheckpointRefused
from training.cohort import Cohort
from training.fit import Phase, fit, perturb
from training.lesions.brains import paintable
from training.lesions.crops import CropSampler
from training.lesions.recipe import PHASES, ROBUST_PHASES, lesion_recipe
from training.lesions.task import LESIONS
from training.recipe import Recipe

TINY = (
    Phase("shapes", steps=3, size=6, edge=20, rate=1e-3),
    Phase("regions", steps=2, size=2, edge=24, rate=1e-3, frozen_norm=True),
)


@pytest.fixture(scope="module")
def sampler(block: Cohort) -> CropSampler:
    return CropSampler(paintable(block, block.subjects[:2]), seed=0)


def _silent(_step: int, _loss: float, _right: float) -> None:
    """Report to nobody."""


def _weights(recipe: Recipe, sampler: CropSampler) -> torch.Tensor:
    return nn.utils.parameters_to_vector(
        recipe.train(LESIONS, sampler, lambda _: _silent).parameters()
    ).detach()


def test_the_same_seed_gives_the_same_weights(sampler: CropSampler) -> None:
    state = torch.get_rng_state()
    first = _weights(Recipe(phases=TINY), sampler)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, _weights(Recipe(phases=TINY), sampler))
    assert not torch.equal(first, _weights(Recipe(phases=TINY, seed=1), sampler))


def test_every_step_is_reported_once_and_in_order(sampler: CropSampler) -> None:
    seen: list[tuple[str, int]] = []

    def announce(phase: Phase) -> object:
        return lambda step, loss, right: seen.append((phase.name, step))

    Recipe(phases=TINY).train(LESIONS, sampler, announce)  # type: ignore[arg-type]
    assert seen == [("shapes", 0), ("shapes", 1), ("shapes", 2), ("regions", 3), ("regions", 4)]


def test_frozen_norms_keep_their_statistics(sampler: CropSampler) -> None:
    network = Recipe(phases=TINY).train(LESIONS, sampler, lambda _: _silent).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    fit(network, sampler, TINY[1:], 0.0, lambda _: _silent)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    fit(network, sampler, TINY[:1], 0.0, lambda _: _silent)
    assert not all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_loss_falls(sampler: CropSampler) -> None:
    losses: list[float] = []
    phase = Phase("shapes", steps=60, size=12, edge=20, rate=5e-3)
    Recipe(phases=(phase,)).train(LESIONS, sampler, lambda _: lambda step, loss, right: losses.append(loss))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_perturbations_stay_in_the_ball_and_raise_the_loss(sampler: CropSampler) -> None:
    network = Recipe(phases=TINY).train(LESIONS, sampler, lambda _: _silent)
    network.zero_grad(set_to_none=True)
    crops, labels = sampler.batch(0, size=6, edge=20)
    worse = perturb(network, crops, labels, budget=1.0)
    assert (worse - crops).flatten(1).norm(dim=1).max() <= 1.0 + 1e-5
    loss = nn.functional.cross_entropy
    assert loss(network(worse), labels) > loss(network(crops), labels)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not worse.requires_grad


def test_a_recipe_scales_to_any_number_of_steps() -> None:
    recipe = lesion_recipe()
    assert recipe.scaled(recipe.steps) == recipe
    short = recipe.scaled(3)
    assert all(1 <= phase.steps <= 2 for phase in short.phases)
    assert [phase.name for phase in short.phases] == [phase.name for phase in PHASES]
    assert abs(recipe.scaled(100).steps - 100) <= len(PHASES)


class _Interrupted(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("crash", [1, 2, 3, 4])
def test_an_interrupted_run_ends_with_the_same_weights(
    sampler: CropSampler, tmp_path: Path, crash: int
) -> None:
    recipe = Recipe(phases=TINY)
    whole = _weights(recipe, sampler)
    seen: list[int] = []

    def announce(phase: Phase) -> object:
        def report(step: int, loss: float, right: float) -> None:
            seen.append(step)
            if len(seen) == crash + 1:
                raise _Interrupted

        return report

    checkpoint = Checkpoint(tmp_path / ".run.checkpoint", {"seed": 0}, every=1)
    with pytest.raises(_Interrupted):
        recipe.train(LESIONS, sampler, announce, checkpoint)  # type: ignore[arg-type]
    resumed = recipe.train(LESIONS, sampler, announce, checkpoint)  # type: ignore[arg-type]
    assert torch.equal(nn.utils.parameters_to_vector(resumed.parameters()).detach(), whole)
    # The step that the crash cut off is the only one taken twice.
    assert seen == [*range(crash + 1), *range(crash, 5)]
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_run_is_refused(sampler: CropSampler, tmp_path: Path) -> None:
    path = tmp_path / ".run.checkpoint"
    Recipe(phases=TINY).train(LESIONS, sampler, lambda _: _silent, Checkpoint(path, {"seed": 0}, every=1))
    with pytest.raises(CheckpointRefused, match=r"another run; remove .*\.run\.checkpoint"):
        Checkpoint(path, {"seed": 1}).load()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointRefused, match="cannot be read"):
        Checkpoint(path, {"seed": 0}).load()


def test_controls_and_the_robust_network_have_recipes_of_their_own() -> None:
    assert lesion_recipe(robust=True).phases == PHASES + ROBUST_PHASES
    assert lesion_recipe(untrained=True).steps == 0
    assert lesion_recipe(shuffled=True).facts()["labels"] != lesion_recipe().facts()["labels"]


def test_shuffled_labels_say_nothing_about_the_crops(sampler: CropSampler) -> None:
    shuffled = CropSampler(sampler.brains, sampler.seed, shuffled=True)
    crops, labels = sampler.batch(0, size=24, edge=20)
    same, dealt = shuffled.batch(0, size=24, edge=20)
    assert torch.equal(crops, same)
    assert not torch.equal(labels, dealt)
    assert torch.equal(labels.sort().values, dealt.sort().values)
