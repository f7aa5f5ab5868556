"""CLEVR-like scenes traced with NumPy, all rays of a picture at once: what `unscene.data.clevr.rendering` must show.

The model of light is the same, number for number; how it is computed is not. 64 x 48 pixels take a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference.clevr_solids import Array, Solid, dot, quadratic, solid_of, unit
from unscene.data.clevr import shading, stage
from unscene.data.clevr.placement import PlacedScenes
from unscene.data.generated_scenes import splitmix64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_PIXELS = np.uint64(0x706978656C730000)


@dataclass(frozen=True)
class Tracer:
    """One scene, and the random numbers of the rays that are traced through it."""

    solids: list[Solid]
    lamps: Any  # record array [4]
    strata: NDArray[np.uint64]  # [R]
    bits: NDArray[np.uint64]  # [R]

    def of(self, rays: NDArray[np.bool_]) -> Tracer:
        """The same for some of the rays."""
        return dataclasses.replace(self, strata=self.strata[rays], bits=self.bits[rays])

    def first_hit(self, origin: Array, direction: Array) -> tuple[Array, NDArray[np.intp]]:
        """[R] distance, and index of the solid, -1 for none."""
        distances = np.stack([np.full(len(origin), np.inf), *[s.distances(origin, direction) for s in self.solids]])
        return distances.min(0), distances.argmin(0) - 1

    def radiance(self, origin: Array, direction: Array) -> Array:
        """[R, 3] what the camera receives."""
        return self._shaded(origin, direction, Tracer.metal)

    def mirror(self, origin: Array, direction: Array, bounces: int, with_lamps: bool) -> Array:
        """[R, 3] what a mirror shows, with so many bounces left."""
        if bounces == 0:
            return np.full(origin.shape, shading.FLOOR_GLOW)

        def deeper(tracer: Tracer, solid: Solid, point: Array, flat: Array, normal: Array, direction: Array) -> Array:
            return solid.colour * tracer.mirror(point, _reflection(direction, normal, flat), bounces - 1, with_lamps)

        seen = self._shaded(origin, direction, deeper)
        return self._lamps_over(seen, origin, direction) if with_lamps else seen

    def _shaded(self, origin: Array, direction: Array, metal: Callable[..., Array]) -> Array:
        seen = np.zeros(origin.shape)
        distance, index = self.first_hit(origin, direction)
        seen[index < 0] = self.of(index < 0).backdrop(origin[index < 0], direction[index < 0])
        for which, solid in enumerate(self.solids):
            rays = index == which
            if not rays.any():
                continue
            flat, normal = solid.normals(origin[rays] + distance[rays, None] * direction[rays])
            point = origin[rays] + distance[rays, None] * direction[rays] + shading.SKIN * flat
            shade = metal if solid.metal else Tracer.rubber
            seen[rays] = shade(self.of(rays), solid, point, flat, normal, direction[rays])
        return seen

    def metal(self, solid: Solid, point: Array, flat: Array, normal: Array, direction: Array) -> Array:
        _, shine = self.light(point, normal, -direction, shading.METAL_ALPHA)
        clear = self.mirror(point, _reflection(direction, normal, flat), shading.BOUNCES, solid.shape == "sphere")
        blurred = [
            self.mirror(point, _reflection(direction, facet, flat), shading.BOUNCES, False)
            for facet in self._facets(normal)
        ]
        share = shading.CLEAR
        mixed = solid.colour * (share * clear + (1 - share) * (np.mean(blurred, axis=0) + shine))
        return np.asarray(np.minimum(mixed, shading.BRIGHTEST))

    def rubber(self, solid: Solid, point: Array, flat: Array, normal: Array, direction: Array) -> Array:
        lamps, shine = self.light(point, normal, -direction, shading.RUBBER_ALPHA)
        straight = shading.RUBBER_SHEEN
        sheen = straight + (1 - straight) * (1 - np.maximum(dot(normal, -direction), 0)) ** 5
        around = shading.GLOW_BELOW * (1 - normal[:, 2:]) / 2 + shading.GLOW_AROUND
        return (1 - sheen) * solid.colour * (lamps / np.pi + around) + sheen * (shine + around)

    def backdrop(self, origin: Array, direction: Array) -> Array:
        """Floor, sweep or wall: the nearest of those that are met within their bounds."""
        axis = np.array([*stage.AXIS, 0])
        o, d, upward = origin @ axis, direction @ axis, direction[:, 2]
        ends, radius = stage.FLOOR_ENDS, stage.SWEEP_RADIUS
        with np.errstate(all="ignore"):
            floor, wall = -origin[:, 2] / upward, (ends + radius - o) / d
            sweep = quadratic(
                d * d + upward**2,
                (o - ends) * d + (origin[:, 2] - radius) * upward,
                (o - ends) ** 2 + (origin[:, 2] - radius) ** 2 - radius**2,
                far=True,
            )
            along_axis = o + floor * d
            on_floor = (upward < 0) & (floor > 0) & (along_axis <= ends) & (along_axis >= stage.FLOOR_STARTS)
            height = origin[:, 2] + wall * upward
            on_wall = (d > 0) & (height >= radius) & (height <= stage.WALL_HEIGHT)
            towards = np.stack([ends - o - sweep * d, radius - origin[:, 2] - sweep * upward], 1) / radius
            in_sweep = ~on_floor & (sweep > 0) & (sweep < np.inf) & (towards[:, 0] < 0) & (towards[:, 1] > 0)
        seen = np.zeros(origin.shape)
        for rays, distance, bend in (
            (on_floor, floor, np.broadcast_to([0.0, 1.0], towards.shape)),
            (on_wall, wall, np.broadcast_to([-1.0, 0.0], towards.shape)),
            (in_sweep, sweep, towards),
        ):
            point = origin[rays] + distance[rays, None] * direction[rays]
            along_axis = point @ axis
            normal = bend[rays, :1] * axis + bend[rays, 1:] * [0, 0, 1]
            lamps, _ = self.of(rays).light(point + shading.SKIN * normal, normal, normal, 0)
            glow = shading.FLOOR_GLOW + shading.SWEEP_GLOW * along_axis.clip(0, ends)
            seen[rays] = shading.FLOOR * (lamps / np.pi + self._tint(point)) + glow[:, None]
        return seen

    def _tint(self, point: Array) -> Array:
        tint = np.zeros(point.shape)
        for solid in self.solids:
            away = np.linalg.norm(solid.centre - point * [1, 1, 0], axis=1, keepdims=True)
            tint += shading.SOLID_GLOW * solid.radius**2 * solid.centre[2] / away**3 * solid.colour
        return tint

    def light(self, point: Array, normal: Array, back: Array, alpha: float) -> tuple[Array, Array]:
        """[R, 3] irradiance, and the lamps' highlights."""
        matt, shine = np.zeros(point.shape), np.zeros(point.shape)
        for which, lamp in enumerate(self.lamps):
            stratum = self.strata >> np.uint64(2 * which)
            u, v = (
                _in_part(stratum >> np.uint64(axis), self.bits >> np.uint64(16 * which + 8 * axis)) * lamp["half"]
                for axis in range(2)
            )
            ray = lamp["position"] + u * lamp["right"] + v * lamp["up"] - point
            length = np.linalg.norm(ray, axis=1, keepdims=True)
            ray = ray / length
            cosines = np.maximum(dot(normal, ray), 0) * np.maximum(-dot(lamp["axis"], ray), 0)
            free = self.first_hit(point, ray)[0][:, None] >= length
            given = free * cosines / length**2 * lamp["power"]
            matt += given
            if alpha > 0:
                shine += np.where(given > 0, given * _ggx(normal, ray, back, alpha), 0)
        return matt, shine

    def _lamps_over(self, seen: Array, origin: Array, direction: Array) -> Array:
        nearest = self.first_hit(origin, direction)[0]
        shown = seen.copy()
        for lamp in self.lamps[::-1]:  # of two lamps in a row the compiled way takes the first
            facing = -dot(lamp["axis"], direction)[:, 0]
            with np.errstate(all="ignore"):
                distance = dot(lamp["axis"], origin - lamp["position"])[:, 0] / facing
                met = origin + distance[:, None] * direction - lamp["position"]
            inside = [np.abs(met @ lamp[side]) <= lamp["half"] for side in ("right", "up")]
            rays = (facing > 0) & (distance > 0) & (distance < nearest) & inside[0] & inside[1]
            shown[rays] = lamp["power"] / (2 * lamp["half"]) ** 2
        return shown

    def _facets(self, normal: Array) -> tuple[Array, Array]:
        bits = splitmix64(self.bits)
        u = ((self.strata >> np.uint64(8)) & np.uint64(3)) + ((bits & np.uint64(255)) + 0.5) / 256
        turn = (2 * np.pi * (((bits >> np.uint64(8)) & np.uint64(255)) + 0.5) / 256)[:, None]
        steep = shading.METAL_ALPHA * np.sqrt(u / (4 - u))[:, None]
        helper = np.where(np.abs(normal[:, 2:]) < 0.9, [0, 0, 1], [1, 0, 0])
        first = unit(np.cross(normal, helper))
        lean = steep * (np.cos(turn) * first + np.sin(turn) * np.cross(normal, first))
        return unit(normal + lean), unit(normal - lean)


def traced(
    scenes: PlacedScenes, scene: int, height: int, width: int, view: tuple[float, float, float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the picture [height, width, 3] and the label map [height, width] of one scene, as `render` does."""
    forward, right, up = stage.facing_origin(scenes.camera[scene])
    solids = [solid_of(scenes, scene, m) for m in range(scenes.number[scene])]
    lamps = stage.lamps_at(scenes.lamps[scene : scene + 1])[0]
    rows, columns = (indices.ravel() for indices in np.mgrid[:height, :width])
    pixel = (rows * width + columns).astype(np.uint64)
    bits = splitmix64(splitmix64(scenes.key[scene : scene + 1] ^ _PIXELS) + pixel * _GOLDEN)

    def through(x: Array, y: Array) -> Array:
        x = view[0] + x * (view[2] - view[0]) / width - stage.WIDTH / 2
        y = view[1] + y * (view[3] - view[1]) / height - stage.HEIGHT / 2
        return unit(stage.FOCAL_LENGTH * forward + x[:, None] * right - y[:, None] * up)

    eye = np.broadcast_to(scenes.camera[scene], (len(pixel), 3))
    mixed = np.zeros((len(pixel), 3))
    for sample in range(stage.STRATA):
        tracer = Tracer(
            solids,
            lamps,
            bits ^ np.uint64(sample * 0x5555555555555555),
            splitmix64(bits + np.array([sample], np.uint64) * _GOLDEN),
        )
        towards = through(columns + 0.25 + sample % 2 / 2, rows + 0.25 + sample // 2 / 2)
        mixed += tracer.radiance(eye, towards) / stage.STRATA
    label = tracer.first_hit(eye, through(columns + 0.5, rows + 0.5))[1] + 1
    curve = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed.clip(0, 1) ** (1 / 2.4) - 0.055)
    image = np.floor(255 * curve.clip(0, 1) + 0.5).astype(np.uint8)
    return image.reshape(height, width, 3), label.astype(np.uint8).reshape(height, width)


def _ggx(normal: Array, ray: Array, back: Array, alpha: float) -> Array:
    facing, seeing = dot(normal, ray), np.maximum(dot(normal, back), 1e-4)
    facets = alpha**2 / (np.pi * (dot(normal, unit(ray + back)) ** 2 * (alpha**2 - 1) + 1) ** 2)
    roots = [np.sqrt(cosine**2 * (1 - alpha**2) + alpha**2) for cosine in (facing, seeing)]
    with np.errstate(all="ignore"):
        return np.asarray(facets / (2 * (facing * roots[1] + seeing * roots[0])))


def _in_part(stratum: NDArray[np.uint64], bits: NDArray[np.uint64]) -> Array:
    """[R, 1] in -1 .. 1, below 0 for part 0."""
    within = ((bits & np.uint64(255)) + 0.5) / 256
    return np.asarray((within + (stratum & np.uint64(1)) - 1)[:, None])


def _reflection(direction: Array, facet: Array, flat: Array) -> Array:
    out = direction - 2 * dot(direction, facet) * facet
    return np.where(dot(out, flat) > 0, out, out - 2 * dot(out, flat) * flat)
