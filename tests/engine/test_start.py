"""Starts, and the scene that turns a latent image into a volume."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from engine import Anatomy, MissingAnatomy, Noise, ReferenceBrain, SubjectImage, Zeros
from engine.start import STARTS, Scene, Start

RANGE = (0.0, 1.1)
CPU = torch.device("cpu")


@pytest.fixture
def anatomy() -> Anatomy:
    generator = torch.Generator().manual_seed(0)
    reference, subject = (torch.rand(6, 7, generator=generator) * 1.1 for _ in range(2))
    reference[0] = 0.0
    return Anatomy(reference=reference, subject=subject)


@pytest.mark.parametrize("start", [Noise(), Zeros(), ReferenceBrain(), SubjectImage()])
def test_a_latent_of_zeros_is_the_start(start: Start, anatomy: Anatomy) -> None:
    expected = {
        "noise": torch.full((6, 7), 0.55),
        "zeros": torch.zeros(6, 7),
        "reference_brain": anatomy.reference,
        "subject": anatomy.subject,
    }[start.name]
    shown = Scene(start, RANGE, anatomy, [], CPU).image(torch.zeros(1, 1, 6, 7))[0, 0]
    torch.testing.assert_close(shown, expected, atol=1e-6, rtol=0)


def test_intensities_are_squashed_around_the_start(anatomy: Anatomy) -> None:
    """Where the start lies well inside the range, the volume is the sigmoid of its logit plus the latent."""
    latent = torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(1))
    shown = Scene(SubjectImage(), RANGE, anatomy, [], CPU).image(latent)[0, 0].numpy()
    share = anatomy.subject.numpy() / 1.1
    inside = (share > 0.02) & (share < 0.98)
    expected = 1.1 * expit(logit(np.clip(share, 1e-3, 1 - 1e-3)) + latent[0, 0].numpy())
    np.testing.assert_allclose(shown[inside], expected[inside], atol=1e-5)
    assert inside.mean() > 0.7


@pytest.mark.parametrize("start", [Noise(), Zeros(), ReferenceBrain(), SubjectImage()])
def test_volumes_stay_within_the_range(start: Start, anatomy: Anatomy) -> None:
    latent = 50 * torch.randn(3, 1, 6, 7, generator=torch.Generator().manual_seed(1))
    shown = Scene(start, RANGE, anatomy, [], CPU).image(latent)
    assert shown.min() >= RANGE[0]
    assert shown.max() <= RANGE[1]


def test_the_latent_of_a_volume_shows_it(anatomy: Anatomy) -> None:
    scene = Scene(ReferenceBrain(), RANGE, anatomy, [], CPU)
    volume = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(2)) * 0.9 + 0.1
    torch.testing.assert_close(scene.image(scene.latent(volume)), volume, atol=2e-2, rtol=0)


def test_windows_multiply_and_leave_the_reference(anatomy: Anatomy) -> None:
    first, second = torch.ones(6, 7), torch.ones(6, 7)
    first[:, 0], second[:, 1] = 0.0, 0.5
    scene = Scene(Noise(), RANGE, Anatomy(reference=anatomy.reference, window=first), [second], CPU)
    shown = scene.image(torch.zeros(1, 1, 6, 7))[0, 0]
    torch.testing.assert_close(shown[:, 0], anatomy.reference[:, 0])
    torch.testing.assert_close(shown[:, 1], (anatomy.reference[:, 1] + 0.55) / 2)
    torch.testing.assert_close(shown[:, 2:], torch.full((6, 5), 0.55))


def test_a_person_goes_on_outside_the_box(anatomy: Anatomy) -> None:
    anatomy = Anatomy(reference=anatomy.reference, subject=anatomy.subject, window=torch.zeros(6, 7))
    scene = Scene(SubjectImage(), RANGE, anatomy, [], CPU)
    torch.testing.assert_close(scene.image(torch.ones(1, 1, 6, 7))[0, 0], anatomy.subject)


@pytest.mark.parametrize(("start", "part"), [(ReferenceBrain(), "reference"), (SubjectImage(), "subject")])
def test_an_image_that_is_not_there_is_named(start: Start, part: str) -> None:
    with pytest.raises(MissingAnatomy, match=part):
        Scene(start, RANGE, Anatomy(), [], CPU)


def test_every_start_is_registered_under_its_name() -> None:
    assert {name: kind.name for name, kind in STARTS.items()} == {name: name for name in STARTS}


def test_slopes_are_the_sigmoids_and_stay_alive_on_the_way_back() -> None:
    scene = Scene(Noise(), (0.0, 1.0), Anatomy(), [], CPU)
    values = torch.tensor([-9.0, -1.0, 0.5, 9.0], dtype=torch.float64)
    for sign in (1.0, -1.0):
        leaf = values[None, None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(sign * scene.image(leaf).sum(), leaf)
        plain = expit(values.numpy()) * expit(-values.numpy())
        # A descent step goes against the slope: with sign 1 it lowers, which leads back from above 0.
        back = sign * values.numpy() > 0
        np.testing.assert_allclose(slope[0, 0].numpy(), sign * np.where(back, np.maximum(plain, 0.1), plain))


def test_a_region_that_went_too_far_comes_back() -> None:
    scene = Scene(Noise(), (0.0, 1.0), Anatomy(), [], CPU)
    latent = torch.full((1, 1, 4), 12.0, requires_grad=True)
    optimizer = torch.optim.SGD([latent], lr=10.0)
    for _ in range(30):
        (latent.grad,) = torch.autograd.grad(scene.image(latent).sum(), latent)
        optimizer.step()
    assert scene.image(latent).max() < 0.1
