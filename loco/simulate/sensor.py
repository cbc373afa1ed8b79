"""Sensor model of a real scanner: developed colour with noise, and depth with noise and holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from loco.simulate.render import RenderedView
from loco.simulate.shapes import Floats

MIDDLE = 0.5  # exposure of the metered brightness, where 1 corresponds to 63 % of full scale
RANGE = (5.5, 11.0)  # depth begins to fail at the first distance and is missing beyond the second, metres


@dataclass(frozen=True)
class Exposure:
    """The ``gain`` and the white ``balance`` (3,), a factor per channel, by which a camera multiplies radiance."""

    gain: float
    balance: Floats


def expose(brightness: float, rng: np.random.Generator) -> Exposure:
    """Return an exposure for ``brightness``, with an error of at most 0.6 stops and an imperfect white balance."""
    stops = np.clip(rng.normal(0, 0.3), -0.6, 0.6)
    return Exposure(MIDDLE / max(brightness, 1e-6) * 2.0**stops, np.exp(rng.normal(0, [0.06, 0.015, 0.06])))


def develop(view: RenderedView, exposure: Exposure, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the camera's image (h, w, 3) uint8, with vignetting, photon and read noise, tone curve and gamma."""
    height, width = view.depth.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - 0.13 * (x**2 + y**2)
    light = view.radiance * vignette[..., None] * exposure.gain * exposure.balance
    light = light + rng.standard_normal(light.shape, dtype=np.float32) * np.sqrt(3e-4 * light + 4e-6)
    shown = 1 - np.exp(-np.maximum(light, 0))
    return np.round(255 * shown ** (1 / 2.2)).astype(np.uint8)


def sense(view: RenderedView, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the depth (h, w) of a structured-light sensor, metres, 0 = none.

    The noise grows with the square of the distance as measured by Nguyen et al. (3DIMPVT 2012). Panes, lamps and
    mirrors have no depth; dark, glossy, oblique or distant surfaces often have none, in patches; depth edges never have
    depth.
    """
    z = view.depth
    height, width = z.shape
    dark = 0.9 * np.clip((0.11 - view.reflectance) / 0.08, 0, 1)
    oblique = np.clip((0.22 - view.cosine) / 0.22, 0, 1)
    glossy = view.gloss * np.clip(1.5 * (1 - view.cosine) - 0.15, 0, 1)
    far = np.clip((z - RANGE[0]) / (RANGE[1] - RANGE[0]), 0, 1)
    likely = 1 - (1 - dark) * (1 - oblique) * (1 - glossy) * (1 - far)
    likely[view.transparent | (view.gloss >= 1) | _rims(z)] = 1.0
    # A smooth random field, transformed to a uniform distribution, makes holes contiguous.
    smooth = ndimage.gaussian_filter(rng.standard_normal((height, width)), width / 100, mode="wrap")
    hole = likely > special.ndtr(smooth / smooth.std())
    noisy = z + rng.standard_normal((height, width)) * depth_noise(z)
    return np.where(hole | (z <= 0), 0, np.maximum(noisy, 0)).astype(np.float32)


def depth_noise(z: Floats) -> Floats:
    """Return the standard deviation of the noise of depth at depth ``z``, both in metres."""
    return 0.0012 + 0.0019 * np.maximum(z - 0.4, 0) ** 2


def _rims(z: Floats) -> NDArray[np.bool_]:
    """Return the mask of pixels within about 1 % of the image width from a depth edge of 5 %."""
    inverse = 1 / np.maximum(z, 0.1)
    reach = max(1, round(z.shape[1] / 250))
    high, low = ndimage.maximum_filter(inverse, 3), ndimage.minimum_filter(inverse, 3)
    # On a plane, inverse depth is linear in the image, so its second difference detects edges but not slopes.
    bend = np.abs(ndimage.laplace(inverse))
    edge = (high > 1.05 * low) & (bend > 0.03 * inverse)
    return ndimage.binary_dilation(edge, iterations=reach - 1) if reach > 1 else edge
