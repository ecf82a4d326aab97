"""The domains of a run, as its settings name them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..data.class_statistics import absent_classes
from ..data.domain import Domain, check_classes, open_domain
from ..runtime.processes import from_first, rank_and_world
from ..settings import Settings


def open_data(settings: Settings) -> tuple[Domain, Domain, Domain | None]:
    """Source and target training samples and target validation samples, None where the target has no labels."""
    source, target = settings.source, settings.target
    if not source:
        from ..scenes.write import write_scenes  # who has data of his own need not know it

        from_first(lambda: write_scenes(Path(settings.scenes)))
        source, target = f"gta5:{settings.scenes}/gta5", f"cityscapes:{settings.scenes}/cityscapes"
    labelled = opened("--source", source, settings.source_size)
    unlabelled = opened("--target", target, settings.target_size)
    check_classes(labelled, unlabelled)
    labelled.check_labels()
    validation = open_validation(target, settings)
    if validation is not None and validation.samples == unlabelled.samples and rank_and_world()[0] == 0:
        print(f"{target}: has no validation images of its own, so the run is evaluated on those that it trains on")
    return labelled, unlabelled, validation


def say_absent_classes(source: Domain, validation: Domain | None) -> list[str]:
    """Prints and returns a line per domain with classes of which a sample of its labels has no pixel."""
    lines = []
    for name, domain in (("source", source), ("validation", validation)):
        absent = "" if domain is None else from_first(partial(absent_classes, domain))
        lines += [f"{name}: {absent}"] * bool(absent)
    for line in lines if rank_and_world()[0] == 0 else ():
        print(line)
    return lines


def opened(option: str, spec: str, size: tuple[int, int] | None) -> Domain:
    """The training samples of a domain; errors name the option."""
    try:
        return open_domain(spec, size=size)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{option} {spec}: {error}") from error


def open_validation(target: str, settings: Settings) -> Domain | None:
    """The target's labelled validation samples; None, said once, where it has none. Training needs no target labels."""
    try:
        validation = open_domain(target, "val", size=settings.target_size)
        if any(sample.label.exists() for sample in validation.samples):
            validation.check_labels()
            return validation
        reason = f"no labels like {validation.samples[0].label}"
    except FileNotFoundError as error:
        reason = str(error)
    if rank_and_world()[0] == 0:
        print(f"{target}: nothing to evaluate on, the run goes without mIoU ({reason})")
    return None


def sample_names(domains: Mapping[str, Domain | None]) -> dict[str, list[str]]:
    """The images of each domain, below its folder, as a checkpoint keeps them."""
    return {
        name: [os.path.relpath(sample.image, domain.root) for sample in domain.samples]
        for name, domain in domains.items()
        if domain is not None
    }


def changed_samples(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each domain whose images are others than those of a checkpoint; see `sample_names`."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        old, new = set(before.get(name, ())), set(now.get(name, ()))
        counts = [f"{len(new - old)} more ({some(new - old)})"] * bool(new - old)
        counts += [f"{len(old - new)} fewer ({some(old - new)})"] * bool(old - new)
        if counts:
            lines.append(f"{name}: the data have changed since the checkpoint, images: {' and '.join(counts)}")
    return lines


def some(names: set[str], count: int = 3) -> str:
    """The first of the names."""
    return ", ".join(sorted(names)[:count]) + ", ..." * (len(names) > count)
