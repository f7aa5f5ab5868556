"""CLEVR's solids met by many rays at once, with NumPy: a cube by its planes, a cylinder by its side and its lids,
a cone by its side and its base."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unscene.data.clevr.objects import ALL_COLOURS, ALL_SHAPES, MATERIALS, SIZES
from unscene.data.clevr.placement import PlacedScenes
from unscene.data.clevr.ray_tracing import BEVEL

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solid:
    """One solid, in its own frame: centred, unturned."""

    shape: str
    metal: bool
    colour: Array
    centre: Array
    radius: float
    axes: Array  # [3, 3] its own x, y, z in the world's

    def distances(self, origin: Array, direction: Array) -> Array:
        """[R] to where each ray enters it, inf where it does not."""
        o, d = (origin - self.centre) @ self.axes.T, direction @ self.axes.T
        with np.errstate(all="ignore"):
            if self.shape == "sphere":
                found = quadratic(np.ones(len(o)), (o * d).sum(1), (o * o).sum(1) - self.radius**2)
            elif self.shape == "cube":
                found = np.minimum.reduce([self._plane(o, d, axis, (0, 1, 2)) for axis in range(3)])
            elif self.shape == "cone":
                found = self._cone(o, d)
            else:
                across = quadratic(
                    (d[:, :2] ** 2).sum(1), (o[:, :2] * d[:, :2]).sum(1), (o[:, :2] ** 2).sum(1) - self.radius**2
                )
                high = ~(np.abs(o[:, 2] + across * d[:, 2]) <= self.radius)  # or upright, and so never
                lid = self._plane(o, d, 2, ())
                far = ((o + lid[:, None] * d)[:, :2] ** 2).sum(1) > self.radius**2
                found = np.minimum(np.where(high, np.inf, across), np.where(far, np.inf, lid))
        return np.where(found > 0, found, np.inf)

    def _plane(self, o: Array, d: Array, axis: int, bounds: tuple[int, ...]) -> Array:
        """To the nearer of two opposite sides, inf where it is missed by more than the half side along `bounds`."""
        distance = (-np.sign(d[:, axis]) * self.radius - o[:, axis]) / d[:, axis]
        met = np.abs(o + distance[:, None] * d)
        outside = np.any([met[:, other] > self.radius for other in bounds if other != axis], axis=0)
        return np.where(outside | ~(distance > 0), np.inf, distance)

    def _cone(self, o: Array, d: Array) -> Array:
        """To the side, in a frame below the tip in which the cone is as deep as it is wide, or to the base."""
        tip = (o - [0, 0, self.radius]) * [1, 1, -0.5]
        along = d * [1, 1, -0.5]
        sign = np.array([1, 1, -1])
        a, b, c = ((one * other * sign).sum(1) for one, other in ((along, along), (tip, along), (tip, tip)))
        found = np.full(len(o), np.inf)
        for far in (False, True):
            root = quadratic(a, b, c, far)
            depth = tip[:, 2] + root * along[:, 2]
            found = np.where((root > 0) & (depth >= 0) & (depth <= self.radius), np.minimum(found, root), found)
        base = self._plane(o, d, 2, ())
        wide = ((o + base[:, None] * d)[:, :2] ** 2).sum(1) > self.radius**2
        return np.asarray(np.minimum(found, np.where(wide | (d[:, 2] <= 0), np.inf, base)))

    def normals(self, point: Array) -> tuple[Array, Array]:
        """[R, 3] of the surface, and to shade with."""
        own = (point - self.centre) @ self.axes.T / self.radius
        if self.shape == "sphere":
            flat = shaded = unit(own) @ self.axes
            return flat, shaded
        lean = np.sign(own) * np.maximum(np.abs(own) - (1 - BEVEL), 0) / BEVEL
        if self.shape == "cube":
            side = np.abs(own).argmax(1)[:, None] == np.arange(3)
            return np.where(side, np.sign(own), 0) @ self.axes, unit(np.where(side, np.sign(own), lean)) @ self.axes
        far = np.hypot(own[:, 0], own[:, 1])[:, None]
        outward, upward = own * [1, 1, 0] / far, np.sign(own) * [0, 0, 1]
        if self.shape == "cone":
            side, down = unit(2 * outward + [0, 0, 1]), np.array([0, 0, -1])
            on_base = (own[:, 2:] + 1) / 2 < (1 - own[:, 2:]) / 2 - far
            rim = np.maximum(far - (1 - BEVEL), 0) / BEVEL
            bent = np.where(on_base, down + rim * side, side + lean * [0, 0, 1])
            return np.where(on_base, down, side) @ self.axes, unit(bent) @ self.axes
        towards_rim = np.maximum(far - (1 - BEVEL), 0) / BEVEL
        lid = np.abs(own[:, 2:]) >= far
        flat = np.where(lid, upward, outward)
        shaded = np.where(lid, upward + towards_rim * outward, outward + lean * [0, 0, 1])
        return flat @ self.axes, unit(shaded) @ self.axes


def solid_of(scenes: PlacedScenes, scene: int, m: int) -> Solid:
    angle = scenes.rotation[scene, m]
    axes = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    radius = list(SIZES.values())[scenes.size[scene, m] - 1]
    return Solid(
        ALL_SHAPES[scenes.shape[scene, m] - 1],
        MATERIALS[scenes.material[scene, m] - 1] == "metal",
        np.array(list(ALL_COLOURS.values())[scenes.color[scene, m] - 1]) / 255,
        np.array([*scenes.position[scene, m], radius]),
        radius,
        axes,
    )


def quadratic(a: Array, b: Array, c: Array, far: bool = False) -> Array:
    """A root of a t^2 + 2 b t + c, inf where there is none."""
    apart = b * b - a * c
    root = np.sqrt(np.maximum(apart, 0))
    return np.where(apart < 0, np.inf, (-b + (root if far else -root)) / a)


def dot(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(-1, keepdims=True))


def unit(a: Array) -> Array:
    return np.asarray(a / np.linalg.norm(a, axis=-1, keepdims=True))
