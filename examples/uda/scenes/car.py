"""A car, the one thing of the street scenes that needs solid geometry: its outline extruded to its width."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .render import CAR, Array, Pen, Rng, World, pick

# A car's outline from its tail to its nose: metres along, metres up. The first and last edges stand upright.
HATCHBACK = np.array([[0, 0.25], [0, 0.9], [0.45, 1.45], [2.3, 1.5], [3.1, 0.98], [4.1, 0.82], [4.2, 0.25]])
SALOON = np.array([[0, 0.28], [0, 0.92], [0.7, 0.98], [1.25, 1.42], [2.7, 1.45], [3.4, 0.98], [4.5, 0.8], [4.6, 0.25]])
VAN = np.array([[0, 0.3], [0, 1.15], [0.12, 2.0], [3.6, 2.0], [4.2, 1.15], [4.9, 0.95], [4.95, 0.3]])

Plane = Callable[[Array], Array]  # outline points (n, 2) -> world points (n, 3)


def draw_car(pen: Pen, rng: Rng, world: World, x: float, z: float) -> None:
    """A body extruded from its outline, seen from behind, from ahead or, now and then, from the side."""
    outline = (HATCHBACK, SALOON, VAN)[rng.choice(3, p=(0.45, 0.4, 0.15))]
    length, width = outline[-1, 0], rng.uniform(1.7, 1.9)
    heading = (0.0 if x > 0 else np.pi) if rng.random() < 0.85 else rng.choice((-1, 1)) * np.pi / 2
    heading += rng.normal() * 0.06
    forward, right = np.array([np.sin(heading), 0, np.cos(heading)]), np.array([np.cos(heading), 0, -np.sin(heading)])
    middle = np.array([x, 0.0, z + (0.5 * length if abs(forward[2]) > 0.7 else 0.5 * width)])

    def body(points: Array, across: float) -> Array:
        """Outline points (n, 2) -> world points (n, 3) in the plane `across` metres right of the car's middle."""
        along: Array = (points[:, :1] - 0.5 * length) * forward
        return middle + along + np.array([0, 1, 0]) * points[:, 1:] + across * right

    near_side = 0.5 * width * (1 if -middle @ right > 0 else -1)
    rear_near = -middle @ forward < 0
    colour = pick(rng, world, "car")
    ground = np.array([[-0.1, 0.0], [length + 0.1, 0.0]])
    pen.shade(np.vstack((body(ground, 0.6 * width), body(ground[::-1], -0.6 * width))), 0.35)
    sides = (lambda p: body(p, 0.5 * width)), (lambda p: body(p, -0.5 * width))
    _draw_shell(pen, world, colour, outline, sides, rear_near)
    if abs(middle @ right) > 0.5 * width:  # otherwise the camera stands behind the car and sees no side
        _draw_side(pen, world, colour, outline, lambda p: body(p, near_side))


def _draw_shell(
    pen: Pen, world: World, colour: Array, outline: Array, sides: tuple[Plane, Plane], rear_near: bool
) -> None:
    """The strips between the two sides, far to near: boot or bonnet, roof, panes; then the lights of the near end."""
    one, other = sides
    strips = list(zip(outline[:-1], outline[1:], strict=True))
    for low, high in strips[::-1] if rear_near else strips:
        edge = np.stack([low, high])
        corners = np.concatenate([one(edge), other(edge[::-1])])
        level = abs(high[1] - low[1]) < 0.3 * abs(high[0] - low[0])
        pen.fill(corners, colour * (1.1 if level else 0.85), CAR)
        if not level and min(low[1], high[1]) > 0.7:  # a slope above the belt line is a pane
            pen.paint(corners.mean(0) + (corners - corners.mean(0)) * 0.82, _pane(world, colour))
    end = outline[0, 0] if rear_near else outline[-1, 0]
    lamp = _lamp(world, rear_near, colour)
    for plane, opposite in ((one, other), (other, one)):
        low, high = (plane(np.array([[end, up]]))[0] for up in (0.58, 0.76))
        inner = 0.22 * (opposite(np.array([[end, 0.58]]))[0] - low)
        pen.paint(np.stack([low, high, high + inner, low + inner]), lamp)


def _draw_side(pen: Pen, world: World, colour: Array, outline: Array, plane: Plane) -> None:
    """The near side: sheet metal, a band of windows, two wheels."""
    pen.fill(plane(outline), colour, CAR)
    cabin = outline[outline[:, 1] > 0.9]
    sunk = cabin.mean(0) + (cabin - cabin.mean(0)) * np.array([0.82, 0.72])
    pen.paint(plane(sunk), _pane(world, colour))
    low, high, pillar = sunk[:, 1].min(), sunk[:, 1].max(), cabin[:, 0].mean()
    left, right = pillar - 0.05, pillar + 0.05
    pen.paint(plane(np.array([[left, low], [right, low], [right, high], [left, high]])), colour)
    turn = np.arange(14) * (2 * np.pi / 14)
    rim = np.stack([np.cos(turn), np.sin(turn)], -1)
    for along in (0.19, 0.81):
        hub = np.array([along * outline[-1, 0], 0.33])
        pen.fill(plane(hub + 0.34 * rim), np.full(3, 0.08), CAR)
        pen.paint(plane(hub + 0.17 * rim), np.full(3, 0.35 + 0.25 * world.contrast))


def _pane(world: World, colour: Array) -> Array:
    """Dark glass, less so where the world's contrast is low."""
    return colour + (np.array([0.1, 0.13, 0.17]) - colour) * (0.55 + 0.45 * world.contrast)


def _lamp(world: World, rear: bool, colour: Array) -> Array:
    """Tail lamps are red and head lamps white, as far as the world's contrast lets them."""
    lamp = np.array([0.85, 0.1, 0.08]) if rear else np.array([0.98, 0.96, 0.85])
    return colour + (lamp - colour) * (0.4 + 0.6 * world.contrast)
