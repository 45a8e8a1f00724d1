"""How does a network come to terms with new pairs in a minute? Its last convolution is fitted by least
squares.

What SFIIN adds to resampled MS is linear in the weights of its last convolution, with all before it as it is.
So the best of them for a set of patches follow from one pass forward over each and from one system of
equations a band, where Adam would take hundreds of steps back and forth.

Each sensor counts by its weight, whatever its contrast: its squared error in units of what it is at present,
as decibels do. Least squares would rather have detail too faint than in the wrong place, as L1 would; so the
truths that are aimed at may have a share more of fine detail than they have. The weights are held near to
those that were, in proportion to how little the patches say about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sfiin.data.pairs import Image, draw
from sfiin.model.injection import SHARES
from sfiin.model.network import SFIIN
from sfiin.training.drawing import Group
from sfiin.training.loss import fine, missing

RIDGE = 1e-2
"""What holds a weight near its old value, as a share of its own energy over the patches."""

STEP = 3
"""Of so many pixels one counts: neighbours tell the same."""

ROUNDS = 3
"""How often the sensors' errors are taken anew as their units; a fourth changes nothing."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Per band: products of the columns with each other (B, n, n), with the target (B, n), and the target's
    own (B)."""

    columns: Array
    target: Array
    power: Array

    def error(self, weights: Array) -> Array:
        """Mean squared error of each band with these weights (B, n)."""
        own = np.einsum("bi,bij,bj->b", weights, self.columns, weights)
        return np.asarray(own - 2 * np.einsum("bi,bi->b", weights, self.target) + self.power)


def fit(
    network: SFIIN,
    groups: Sequence[Group],
    *,
    patch: int,
    patches: int,
    seed: int,
    sharpen: float = 0.0,
    watch: Callable[[str], None] = lambda _: None,
) -> None:
    """Fit the last convolution in place, to so many patches of each group, their fine detail raised by
    `sharpen`.

    The patches are those of `sfiin.data.pairs.draw`, so that a drawing varies them; `seed` determines them.
    `watch` is told of each group that was looked at.
    """
    found = []
    for number, group in enumerate(groups):
        images = draw(group.sources, patch, patches, (seed, number))
        ms, pan, truth = images
        each = (np.s_[i : i + 1] for i in range(patches))
        seen = [_moments(network, ms[one], pan[one], truth[one], sharpen) for one in each]
        found.append(_mean(seen))
        watch(group.name)
    tail = network.refine.tail
    assert isinstance(tail, nn.Conv2d)
    was = _rows(tail, network.config.bands)
    _put(tail, _solved(found, [group.weight for group in groups], was))


def _moments(network: SFIIN, ms: Image, pan: Image, truth: Image, sharpen: float = 0.0) -> Moments:
    """Of one patch, (1, ...) each, in units of what resampling leaves missing there."""
    scale, bands = network.sensor.scale, network.config.bands
    with torch.no_grad():
        low, sharp, wanted = (torch.from_numpy(image) / scale for image in (ms, pan, truth))
        base, spread, proposals, features = _linear(network, low, sharp)
        unit = missing(base, wanted)
        wanted = wanted + sharpen * fine(wanted)
        for share, proposal in zip(SHARES[network.config.inject].values(), proposals, strict=True):
            base = base + share * proposal
        rest = ((wanted - base) / unit).flatten(2)[0, :, ::STEP]
        scales = [(part / unit).flatten(2)[0, :, ::STEP] for part in (spread, *proposals)]
        columns, target = [], []
        for band in range(bands):
            each = torch.cat([part[band] * features for part in scales])
            columns.append((each @ each.T / each.shape[1]).double().numpy())
            target.append((each @ rest[band] / each.shape[1]).double().numpy())
    return Moments(np.stack(columns), np.stack(target), rest.square().mean(1).double().numpy())


def _linear(network: SFIIN, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor]:
    """Resampled MS, the unit of the residual, the proposals, and what the last convolution sees of each
    pixel.

    The last is (9 C + 1, pixels / STEP): neighbourhoods, and a one for the bias.
    """
    seen: list[Tensor] = []
    hook = network.refine.tail.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    try:
        if network.config.is_plain:
            base = network.upsample(ms)
            spread, proposals = torch.ones_like(base), ()
            network.core(base, pan)
        else:
            around = network.injection(ms, pan)
            base, spread, proposals = around.base, around.spread, around.proposals
            network.core(around.ms, around.pan)
    finally:
        hook.remove()
    features = functional.unfold(seen[0], 3, padding=1)[0, :, ::STEP]
    return base, spread, proposals, torch.cat([features, torch.ones_like(features[:1])])


def _solved(found: Sequence[Moments], counts: Sequence[float], was: Array) -> Array:
    """The weights (B, n) that make the sum of the groups' errors least, each in units of its own and by its
    count."""
    weights = was
    for _ in range(ROUNDS):
        errors = [np.maximum(group.error(weights), 1e-12) for group in found]
        units = [error / count for error, count in zip(errors, counts, strict=True)]
        columns = sum(group.columns / unit[:, None, None] for group, unit in zip(found, units, strict=True))
        target = sum(group.target / unit[:, None] for group, unit in zip(found, units, strict=True))
        held = RIDGE * np.einsum("bii->bi", columns) + 1e-9
        system = columns + held[:, :, None] * np.eye(was.shape[1])
        weights = np.linalg.solve(system, (target + held * was)[..., None])[..., 0]
    return weights


def _mean(seen: Sequence[Moments]) -> Moments:
    return Moments(
        np.mean([one.columns for one in seen], 0),
        np.mean([one.target for one in seen], 0),
        np.mean([one.power for one in seen], 0),
    )


def _rows(tail: nn.Conv2d, bands: int) -> Array:
    """The weights by band: (B, n), n over what is added, then channels, rows and columns, then the bias."""
    assert tail.bias is not None
    flat = torch.cat([tail.weight.detach().flatten(1), tail.bias.detach()[:, None]], 1).double().numpy()
    return np.asarray(flat.reshape(-1, bands, flat.shape[1]).transpose(1, 0, 2).reshape(bands, -1))


def _put(tail: nn.Conv2d, weights: Array) -> None:
    """The inverse of `_rows`, in place."""
    assert tail.bias is not None
    bands, each = len(weights), tail.weight[0].numel() + 1
    flat = torch.from_numpy(weights.reshape(bands, -1, each).transpose(1, 0, 2).reshape(-1, each))
    with torch.no_grad():
        tail.weight.copy_(flat[:, :-1].reshape(tail.weight.shape))
        tail.bias.copy_(flat[:, -1])
