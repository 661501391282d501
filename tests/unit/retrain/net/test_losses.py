"""Which pixels the loss on a slice's strongest places moves, and which way; descent lowers a positive gradient."""

import torch
from torch import Tensor

from dicomguard.retrain.net.losses import dense_losses

SIDE = 64


def peak_gradient(logits: Tensor, *, forged: Tensor, valid: Tensor) -> Tensor:
    """Gradient (SIDE/2)² of the peaks' loss of one image."""
    maps = torch.zeros(1, 3, SIDE // 2, SIDE // 2)
    maps[0, 0] = logits
    maps.requires_grad_()
    nothing = torch.zeros(1, SIDE, SIDE)
    losses = dense_losses(
        maps,
        forged=forged[None],
        lesion=nothing,
        valid=valid[None],
        lesion_known=torch.zeros(1),
        added=torch.full((1,), -1.0),
    )
    losses["forgery_peak"].backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    return maps.grad[0, 0]


def squares() -> tuple[Tensor, Tensor]:
    """Logits with one loud authentic place and one loud place in the forgery; the forgery's mask."""
    logits = torch.full((SIDE // 2, SIDE // 2), -4.0)
    logits[4:9, 4:9] = 2.0
    logits[20:25, 20:25] = 1.0
    forged = torch.zeros(SIDE, SIDE)
    forged[36:56, 36:56] = 1.0
    return logits, forged


def test_the_loudest_authentic_place_is_quietened_and_the_forgery_raised() -> None:
    logits, forged = squares()
    gradient = peak_gradient(logits, forged=forged, valid=torch.ones(SIDE, SIDE))
    assert float(gradient[6, 6]) > 0
    assert float(gradient[22, 22]) < 0
    assert float(gradient[12:16, 2:30].abs().max()) == 0, "quiet places are the other losses' matter"
    assert float(gradient[0:14].min()) >= 0
    assert float(gradient[18:].max()) <= 0


def test_an_authentic_image_has_only_places_to_quieten() -> None:
    logits, _ = squares()
    gradient = peak_gradient(logits, forged=torch.zeros(SIDE, SIDE), valid=torch.ones(SIDE, SIDE))
    assert float(gradient.min()) == 0
    assert float(gradient[6, 6]) > 0


def test_what_is_unknown_is_not_moved() -> None:
    logits, forged = squares()
    valid = torch.ones(SIDE, SIDE)
    valid[:32] = 0
    gradient = peak_gradient(logits, forged=forged, valid=valid)
    assert float(gradient[:16].abs().max()) == 0
    assert float(gradient[22, 22]) < 0


def test_a_crop_of_air_costs_nothing() -> None:
    logits, forged = squares()
    gradient = peak_gradient(logits, forged=forged, valid=torch.zeros(SIDE, SIDE))
    assert float(gradient.abs().max()) == 0
