"""Pixels per class in every image of a data set, for rare class sampling.

They are counted once, which takes minutes for the large data sets, and kept in a file; or taken from the
sample_class_stats.json that DAFormer's conversion scripts left beside the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from ..runtime.files import write_whole
from ..runtime.output import progress
from .domain import Domain
from .images import read_ids
from .labels import IGNORE
from .layouts import Sample

ImagePixels = list[dict[int, int]]
THREADS = min(os.cpu_count() or 1, 8)
CHECKED = 10  # samples whose label files are held against statistics that lie beside the data


def class_statistics(domain: Domain, cache: Path) -> ImagePixels:
    """Per sample {train id: pixels} of its label file, classes without a pixel left out.

    Args:
        cache: folder that keeps what was counted. Of several processes let one go first: each would count on its own.

    Raises:
        FileNotFoundError: images without labels.
        ValueError: label files that cannot be read, hold strange ids or are not of their image's size.
    """
    pixels = beside(domain)
    if pixels is None:
        domain.check_labels()
        pixels = cached(domain, cache)
    return pixels


def beside(domain: Domain) -> ImagePixels | None:
    """The statistics that lie in the data set's folder; None where there are none, or not those of the samples.

    What they say of a few samples is held against the label files: statistics of other labels would go unnoticed.

    Raises:
        ValueError: a file of another form, or with ids that are not train ids.
    """
    path = domain.root / "sample_class_stats.json"
    if not path.is_file():
        return None
    try:  # [{"0": pixels, ..., "file": path}, ...], one entry per label file
        entries = json.loads(path.read_text(encoding="utf-8"))
        by_file = {key(e["file"]): {int(k): int(n) for k, n in e.items() if k != "file" and n} for e in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the statistics of DAFormer's conversion scripts: {error!r}") from error
    strange = {k for counts in by_file.values() for k in counts} - set(range(len(domain.classes)))
    if strange:
        raise ValueError(f"{path}: expected train ids 0-{len(domain.classes) - 1}, got {min(strange)}")
    keys = [key(sample.label.name) for sample in domain.samples]
    known = sum(k in by_file for k in keys)
    if known < len(keys) or len(set(keys)) < len(keys):
        print(f"{path}: knows {known} of {len(keys)} samples, not used")
        return None
    pixels = [by_file[k] for k in keys]
    if wrong := disagreement(domain, pixels):
        print(f"{path}: {wrong}; not used, delete it")
        return None
    return pixels


def disagreement(domain: Domain, pixels: ImagePixels) -> str:
    """What statistics say wrongly of the first of a few samples that they do not agree with; empty if of none."""
    for index in spread(len(domain), CHECKED):
        counted = count_one(domain, index)
        if counted != pixels[index]:
            label, names = domain.samples[index].label, domain.classes.names
            k = next(k for k in range(len(names)) if counted.get(k, 0) != pixels[index].get(k, 0))
            return f"says {pixels[index].get(k, 0)} pixels of {names[k]} in {label}, which has {counted.get(k, 0)}"
    return ""


def absent_classes(domain: Domain, limit: int = 200) -> str:
    """Names the classes without a labelled pixel in up to `limit` label files spread over the domain; empty if none.

    Raises:
        ValueError: as `class_statistics`; also where no class has a labelled pixel.
    """
    indices = spread(len(domain), limit)
    names, pixels = domain.classes.names, count(domain, indices)
    absent = [name for k, name in enumerate(names) if not any(k in counts for counts in pixels)]
    of = "" if len(indices) == len(domain) else f" of {len(domain)}"
    files = f"{len(indices)}{of} label files{nothing_in_255(domain, indices) if absent else ''}"
    if len(absent) == len(names):
        own = domain.classes.own
        hint = f"; they are Cityscapes', since there is no {own}" if own is not None and not own.exists() else ""
        raise ValueError(f"{domain.spec}: expected labelled pixels of its classes, found none in {files}{hint}")
    return f"no labelled pixel of {', '.join(absent)} in {files}" if absent else ""


def nothing_in_255(domain: Domain, indices: list[int]) -> str:
    """A reminder where one's own label files hold 255, as masks of 0 and 255 do."""
    labels = [domain.samples[indices[i]].label for i in spread(len(indices), CHECKED)]
    holds = domain.classes.own is not None and any((read_ids(path) == IGNORE).any() for path in labels)
    return "; 255, which they hold, counts as no class" if holds else ""


def spread(samples: int, count: int) -> list[int]:
    """Up to `count` indices from the first sample to the last."""
    indices: list[int] = torch.linspace(0, samples - 1, min(count, samples)).long().tolist()
    return indices


def key(file: str) -> str:
    """What raw and converted label files of one image have in common."""
    stem = file.replace("\\", "/").rsplit("/")[-1].rsplit(".", 1)[0]
    return stem.removesuffix("_labelTrainIds").removesuffix("_labelIds")


def cached(domain: Domain, cache: Path) -> ImagePixels:
    """The statistics in the cache, or new ones where there are none of this data set as it is now."""
    where = f"{domain.spec.partition(':')[0]}:{domain.root.resolve()}"
    path = cache / f"class-statistics-{hashlib.sha256(os.fsencode(where)).hexdigest()[:12]}.json"
    state = {"domain": where, "samples": len(domain), "fingerprint": fingerprint(domain)}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {name: found[name] for name in state} == state:
            return [{int(k): n for k, n in counts.items()} for counts in found["pixels"]]
        print(f"{domain.spec}: the data set has changed, its class statistics are counted anew")
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError):
        print(f"{path}: damaged, class statistics are counted anew")
    pixels = count(domain, range(len(domain)))
    cache.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({**state, "pixels": pixels}), shared=True)
    return pixels


def fingerprint(domain: Domain) -> str:
    """Changes with the names and contents of the label files and with the classes."""
    root = domain.root

    def content(sample: Sample) -> bytes:
        name = os.fsencode(os.path.relpath(sample.label, root))
        return name + hashlib.blake2b(sample.label.read_bytes()).digest()

    with ThreadPoolExecutor(THREADS) as pool:
        digest = hashlib.sha256(b"".join(pool.map(content, domain.samples)))
    digest.update("\n".join(domain.classes.names).encode())
    digest.update(domain.classes.ids.tobytes())
    return digest.hexdigest()[:16]


def count(domain: Domain, indices: Sequence[int]) -> ImagePixels:
    """Per sample {train id: pixels}, read from its label file."""
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(partial(count_one, domain), indices)
        title = f"class statistics of {domain.spec}"
        return list(progress(results, len(indices), title, "image", silent=len(indices) < len(domain)))


def count_one(domain: Domain, index: int) -> dict[int, int]:
    labels = domain.labels(index)
    domain.check_size(index, labels)
    counts = torch.bincount(labels.flatten(), minlength=256)[:IGNORE].tolist()
    return {k: n for k, n in enumerate(counts) if n}
