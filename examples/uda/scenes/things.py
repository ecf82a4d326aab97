"""What stands along a procedural street: houses, trees, poles, signs, people (cars have a file of their own)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .car import draw_car
from .render import (
    BUILDING,
    EGO,
    NEAR,
    PERSON,
    POLE,
    SIGN,
    VEGETATION,
    Array,
    Pen,
    Range,
    Rng,
    Street,
    World,
    disc,
    pick,
    rgb,
    wall_across,
    wall_along,
)

Thing = tuple[float, Callable[[Pen], None]]  # its distance in metres and how to draw it there


def draw_things(pen: Pen, rng: Rng, world: World, street: Street) -> None:
    """Everything that stands on the ground, far to near; last the camera car's own bonnet."""
    draw_backdrop(pen, rng, world)
    for _, draw in sorted(houses(rng, world, street) + objects(rng, world, street), key=lambda item: -item[0]):
        draw(pen)
    if world.bonnet:
        draw_bonnet(pen, rng, world)


def later(draw: Callable[..., None], rng: Rng, world: World, *place: Any) -> Callable[[Pen], None]:
    """`draw` at a place, once its turn comes, with a generator of its own."""
    own = np.random.default_rng(rng.integers(2**63))
    return lambda pen: draw(pen, own, world, *place)


def objects(rng: Rng, world: World, street: Street) -> list[Thing]:
    """Trees, poles, people and cars at random places."""

    def near(low: float, high: float) -> float:
        return float(low * (high / low) ** rng.random())  # even on the image rather than on the ground

    def thing(z: float, draw: Callable[..., None], x: float) -> Thing:
        return z, later(draw, rng, world, x, z)

    found = []
    for _ in range(rng.poisson(world.trees)):
        side = rng.choice((-1, 1))
        found.append(thing(near(6, 60), draw_tree, street.house_line(side) - side * rng.uniform(-1.5, 1.2)))
    for _ in range(1 + rng.poisson(world.poles)):
        side = rng.choice((-1, 1))
        found.append(thing(near(4.5, 22), draw_pole, street.kerb(side) + side * rng.uniform(0.3, 0.9)))
    for _ in range(rng.poisson(world.people)):
        side = rng.choice((-1, 1))
        walking = street.kerb(side) + side * rng.uniform(0.4, 0.9) * street.walk
        crossing = rng.uniform(street.left, street.right)
        found.append(thing(near(4, 15), draw_person, walking if rng.random() < 0.8 else crossing))
    for lane in rng.permutation([0.15, 0.5, 0.85, 0.15, 0.85])[: 1 + rng.poisson(world.cars)]:
        x = street.left + (street.right - street.left) * lane + rng.normal() * 0.25
        found.append(thing(near(6.5, 45), draw_car, x))
    return found


def houses(rng: Rng, world: World, street: Street) -> list[Thing]:
    """Both sides' rows of plots; a plot holds a house or a hedge, a side street leaves a gap."""
    found: list[Thing] = []
    for side in (-1, 1):
        z = rng.uniform(-8, 0)
        while z < 95:
            length = rng.uniform(7, 17)
            if street.crossing[0] - 1 < z + length and z < street.crossing[1] + 1:
                z = street.crossing[1] + 1.5
            x = street.house_line(side) + side * rng.uniform(0, 1.5)
            draw = draw_hedge if rng.random() < world.gap else draw_house
            found.append((max(z, NEAR) + 0.9 * length, later(draw, rng, world, x, side, (z, z + length))))
            z += length + (rng.uniform(1, 5) if rng.random() < 0.25 else 0)
    return found


def draw_backdrop(pen: Pen, rng: Rng, world: World) -> None:
    """Where the street seems to end: a skyline, with trees before it."""
    x = -260.0
    while x < 260:
        width = rng.uniform(12, 40)
        if rng.random() < 0.75:
            pen.fill(wall_across((x, x + width), (0, rng.uniform(6, 26)), 150), pick(rng, world, "building"), BUILDING)
        x += width
    for x in rng.uniform(-60, 60, rng.poisson(3)):
        draw_tree(pen, rng, world, x, 120.0)


def draw_house(pen: Pen, rng: Rng, world: World, x: float, side: int, extent: Range) -> None:
    """A house whose front lies along the street at x: side wall, front, windows, cornice, sometimes a roof."""
    near, far = max(extent[0], NEAR), extent[1]
    if far <= NEAR:
        return
    colour, storeys = pick(rng, world, "building"), int(rng.integers(*world.storeys, endpoint=True))
    high = 1.0 + 3.0 * storeys
    front, end = (0.82, 1.08) if side > 0 else (1.0, 0.88)  # the sun stands on the right
    back = x + side * 12
    pen.fill(wall_across((x, back), (0, high), near), colour * end, BUILDING)
    _end_windows(pen, colour, world, x, side, near, storeys)
    pen.fill(wall_along(x, (0, high), (near, far)), colour * front, BUILDING)
    _windows(pen, rng, colour * front, world, x, extent, storeys)
    trim = colour * front * (1 + 0.25 * world.contrast)
    pen.paint(wall_along(x, (high - 0.45, high), (near, far)), trim)
    pen.paint(wall_across((x, back), (high - 0.45, high), near), trim)
    if rng.random() < 0.35:
        ridge, peak = x + side * 6, high + 3.2
        roof = np.array([[x, high, near], [ridge, peak, near], [ridge, peak, far], [x, high, far]])
        pen.fill(roof, pick(rng, world, "roof"), BUILDING)
        pen.fill(np.array([[x, high, near], [ridge, peak, near], [back, high, near]]), colour, BUILDING)


def _windows(pen: Pen, rng: Rng, colour: Array, world: World, x: float, extent: Range, storeys: int) -> None:
    """The front's openings with their frames; too far away they would only be noise."""
    glass, frame = _glass(rng, colour, world), colour * (1 + 0.3 * world.contrast)
    pitch, width, tall = rng.uniform(2.2, 3.4), rng.uniform(1.0, 1.6), rng.uniform(1.3, 1.9)
    shop = rng.random() < 0.4
    starts = np.arange(extent[0] + 0.6, min(extent[1] - width, 70.0), pitch)
    spans = [(max(z, NEAR), z + width) for z in starts if z + width > NEAR]
    upper = [(near, far, 1.4 + 3.0 * storey) for near, far in spans for storey in range(int(shop), storeys)]
    if upper:
        frames = [wall_along(x, (low - 0.12, low + tall + 0.1), (near, far + 0.1)) for near, far, low in upper]
        pen.paint(np.stack(frames), frame)
        pen.paint(np.stack([wall_along(x, (low, low + tall), (near, far)) for near, far, low in upper]), glass)
    if shop and spans:
        pen.paint(np.stack([wall_along(x, (0.4, 3.0), (near, near + 0.85 * pitch)) for near, _ in spans]), 0.9 * glass)
        pen.paint(wall_along(x, (3.1, 3.7), (max(extent[0], NEAR), extent[1])), pick(rng, world, "awning"))


def _end_windows(pen: Pen, colour: Array, world: World, x: float, side: int, z: float, storeys: int) -> None:
    """A few openings in the wall that looks back at the camera."""
    corners = [(x + side * offset, 1.4 + 3.0 * storey) for storey in range(storeys) for offset in (2.0, 5.0, 8.0)]
    walls = [wall_across((left, left + side * 1.2), (low, low + 1.5), z) for left, low in corners]
    pen.paint(np.stack(walls), colour * (1 - 0.45 * world.contrast))


def _glass(rng: Rng, colour: Array, world: World) -> Array:
    """Panes reflect the sky or show a dark room."""
    dark = np.array([0.12, 0.16, 0.22]) if rng.random() < 0.6 else np.array([0.45, 0.62, 0.75])
    return colour + (dark - colour) * world.contrast * rng.uniform(0.7, 1.0)


def draw_hedge(pen: Pen, rng: Rng, world: World, x: float, side: int, extent: Range) -> None:
    """Bushes along an empty plot, far to near."""
    colour = pick(rng, world, "vegetation")
    for z in np.arange(extent[1], max(extent[0], 4.0), -1.7):
        radius = rng.uniform(0.8, 1.6)
        _leaves(pen, rng, colour, (x + side * rng.uniform(0.5, 2.5), 0.6 * radius, z), radius)


def _leaves(pen: Pen, rng: Rng, colour: Array, centre: tuple[float, float, float], radius: float) -> None:
    """A ragged ball of leaves, lit from above."""
    rough = rng.uniform(0.8, 1.15, 14)
    x, y, z = centre
    pen.fill(disc(centre, (radius, radius), rough), colour * rng.uniform(0.75, 0.95), VEGETATION)
    for _ in range(2):
        across, up = rng.uniform(-0.4, 0.4) * radius, rng.uniform(0, 0.5) * radius
        spot = disc((x + across, y + up, z), (0.5 * radius, 0.4 * radius), rng.uniform(0.8, 1.15, 14))
        pen.paint(spot, colour * rng.uniform(0.95, 1.2))


def draw_tree(pen: Pen, rng: Rng, world: World, x: float, z: float) -> None:
    """A shadow, a trunk and a crown of several balls, the lower ones darker."""
    high, wide = rng.uniform(4.5, 8.5), rng.uniform(1.3, 2.4)
    pen.shade(_ground_disc(x, z, 0.9 * wide), 0.7)
    trunk = pick(rng, world, "trunk")
    pen.fill(wall_across((x - 0.14, x + 0.14), (0, 0.65 * high), z), trunk, VEGETATION)
    pen.paint(wall_across((x + 0.03, x + 0.14), (0, 0.65 * high), z), trunk * 0.75)
    colour = pick(rng, world, "vegetation")
    for k, up in enumerate(np.linspace(0.5, 0.95, 6)):
        offset = rng.uniform(-0.6, 0.6) * wide * (1.3 - up)
        _leaves(pen, rng, colour * (0.82 + 0.05 * k), (x + offset, up * high, z), wide * rng.uniform(0.6, 0.9))


def _ground_disc(x: float, z: float, radius: float) -> Array:
    """A level circle (14, 3)."""
    angle = np.arange(14) * (2 * np.pi / 14)
    return np.stack([x + radius * np.cos(angle), np.zeros(14), z + radius * np.sin(angle)], -1)


def draw_pole(pen: Pen, rng: Rng, world: World, x: float, z: float) -> None:
    """A street lamp, or a post that carries one or two traffic signs."""
    colour, thick = pick(rng, world, "pole"), rng.uniform(0.1, 0.17)
    kind = rng.random()
    high = rng.uniform(4.5, 7.0) if kind < 0.4 else rng.uniform(2.7, 3.8)
    pen.fill(wall_across((x - thick, x + thick), (0, high), z), colour, POLE)
    pen.paint(wall_across((x + 0.3 * thick, x + thick), (0, high), z), colour * 0.75)
    if kind < 0.4:  # the lamp's arm reaches over the road
        inward = -np.sign(x) * rng.uniform(1.0, 1.8)
        pen.fill(wall_across((x, x + inward), (high - thick, high + thick), z), colour, POLE)
        pen.fill(wall_across((x + inward, x + 0.6 * inward), (high - 0.22, high + 0.1), z), 1.15 * colour, POLE)
    else:
        for k in range(1 + int(rng.random() < 0.3)):
            draw_sign(pen, rng, world, (x, high - 0.3 - 1.2 * k, z - 0.05))


def draw_sign(pen: Pen, rng: Rng, world: World, centre: tuple[float, float, float]) -> None:
    """A round, triangular or square plate with a rim."""
    radius, corners = rng.uniform(0.5, 0.75), int(rng.choice((3, 4, 16)))
    rim, plate = pick(rng, world, "sign"), pick(rng, world, "plate")
    turn = {3: np.pi / 2, 4: np.pi / 4, 16: 0.0}[corners] + 2 * np.pi * np.arange(corners) / corners
    outline = np.stack([np.cos(turn), np.sin(turn), np.zeros(corners)], -1) * radius
    pen.fill(outline + np.array(centre), rim, SIGN)
    if rng.random() < 0.75:
        pen.paint(outline * 0.66 + np.array(centre), plate)


def draw_person(pen: Pen, rng: Rng, world: World, x: float, z: float) -> None:
    """Somebody who stands or walks: legs, coat, arms, head and hair, for a height between 1.5 and 1.95 metres."""
    tall, stride, turn = rng.uniform(1.5, 1.95), rng.uniform(0.03, 0.16), rng.choice((-1, 1))
    coat, trousers, skin, hair = (pick(rng, world, name) for name in ("person", "trousers", "skin", "hair"))
    at = np.array([x, 0.0, z])

    def part(outline: list[tuple[float, float]], colour: Array) -> None:
        """Corners across and up, in body heights, for somebody who walks to the right."""
        flat = np.array([(turn * u, v, 0.0) for u, v in outline]) * tall
        pen.fill(flat + at, colour, PERSON)

    pen.shade(_ground_disc(x, z, 0.35), 0.65)
    part([(-0.01, 0.5), (0.07, 0.5), (stride + 0.06, 0.0), (stride - 0.03, 0.0)], trousers * 0.8)
    part([(-0.08, 0.5), (0.02, 0.5), (0.04 - stride, 0.0), (-0.05 - stride, 0.0)], trousers)
    part([(0.1, 0.78), (0.13, 0.78), (0.15 + stride, 0.46), (0.11 + stride, 0.46)], coat * 0.8)
    part([(-0.09, 0.44), (0.09, 0.44), (0.115, 0.8), (0.05, 0.84), (-0.05, 0.84), (-0.115, 0.8)], coat)
    part([(-0.12, 0.8), (-0.07, 0.8), (-0.1 - 0.5 * stride, 0.46), (-0.15 - 0.5 * stride, 0.46)], coat * 0.88)
    pen.fill(disc((x, 0.91 * tall, z), (0.055 * tall, 0.085 * tall), corners=12), skin, PERSON)
    pen.fill(disc((x - 0.01 * turn, 0.955 * tall, z), (0.06 * tall, 0.05 * tall), corners=12), hair, PERSON)


def draw_bonnet(pen: Pen, rng: Rng, world: World) -> None:
    """The camera car's own bonnet at the lower edge, whatever roll and shift did to the street."""
    rows, cols = pen.view.rows, pen.view.cols
    top = rows * (1 - rng.uniform(0.03, 0.08))
    along = np.linspace(0, 1, 17)
    curve = [(cols * u, top + 1.3 * (rows - top) * (2 * u - 1) ** 4) for u in along]
    shape = [*curve, (cols, rows + 2), (0, rows + 2)]
    pen.colour.polygon(shape, rgb(pick(rng, world, "car") * 0.6))
    pen.label.polygon(shape, EGO)
    pen.light.polygon(shape, 255)
    pen.depth.polygon(shape, 0)
    pen.colour.line(curve, rgb(pick(rng, world, "plate")), width=2)
