"""Pixels per class in every image of a data set, for rare class sampling.

They are counted once, which takes minutes for the large data sets, and kept in a file; or taken from the
sample_class_stats.json or samples_with_class.json that DAFormer's conversion scripts left beside the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ..runtime.files import write_whole
from ..runtime.output import progress
from .domain import Domain
from .labels import IGNORE

ImagePixels = list[dict[int, int]]


def class_statistics(domain: Domain, cache: Path, workers: int = 0) -> ImagePixels:
    """Per sample {train id: pixels} of its label file, classes without a pixel left out.

    Args:
        domain: the labelled domain; its `size` does not matter.
        cache: folder that keeps what was counted. Several processes may share it, but each would count on its own: let
            one go first.
        workers: threads that count; 0 takes as many as there are cores, at most 8.

    Returns:
        What `RareClassSampler` takes. Names classes that never occur in one printed line.

    Raises:
        FileNotFoundError: images without labels.
        ValueError: label files that cannot be read, hold strange ids or are not of their image's size.
    """
    pixels = beside(domain)
    if pixels is None:
        domain.check_labels()
        pixels = cached(domain, cache, workers)
    absent = [name for k, name in enumerate(domain.classes.names) if not any(k in counts for counts in pixels)]
    if absent:
        print(f"{domain.spec}: no pixel of {', '.join(absent)}")
    return pixels


def beside(domain: Domain) -> ImagePixels | None:
    """The statistics that lie in the data set's folder; None where there are none, or not of every sample."""
    for name, parse in (("sample_class_stats.json", by_sample), ("samples_with_class.json", by_class)):
        path = domain.root / name
        if not path.is_file():
            continue
        try:
            by_file = parse(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: expected the statistics of DAFormer's conversion scripts: {error!r}") from error
        strange = {k for counts in by_file.values() for k in counts} - set(range(len(domain.classes)))
        if strange:
            raise ValueError(f"{path}: expected train ids 0-{len(domain.classes) - 1}, got {min(strange)}")
        keys = [key(sample.label.name) for sample in domain.samples]
        known = sum(k in by_file for k in keys)
        if len(set(keys)) == len(keys) and (known == len(keys) or (known and parse is by_class)):
            return [by_file.get(k, {}) for k in keys]
        print(f"{path}: knows {known} of {len(keys)} samples, not used")
    return None


def by_sample(content: Any) -> dict[str, dict[int, int]]:
    """[{"0": pixels, ..., "file": path}, ...], one entry per label file."""
    return {key(entry["file"]): {int(k): int(n) for k, n in entry.items() if k != "file" and n} for entry in content}


def by_class(content: Any) -> dict[str, dict[int, int]]:
    """{"0": [[path, pixels], ...], ...}: files without any class are not in it."""
    by_file: dict[str, dict[int, int]] = {}
    for k, entries in content.items():
        for file, n in entries:
            by_file.setdefault(key(file), {})[int(k)] = int(n)
    return by_file


def key(file: str) -> str:
    """What raw and converted label files of one image have in common."""
    stem = file.replace("\\", "/").rsplit("/")[-1].rsplit(".", 1)[0]
    return stem.removesuffix("_labelTrainIds").removesuffix("_labelIds")


def cached(domain: Domain, cache: Path, workers: int) -> ImagePixels:
    """The statistics in the cache, or new ones where there are none of this data set as it is now."""
    where = f"{domain.spec.partition(':')[0]}:{domain.root.resolve()}"
    path = cache / f"class-statistics-{hashlib.sha256(where.encode()).hexdigest()[:12]}.json"
    state = {"domain": where, "samples": len(domain), "fingerprint": fingerprint(domain)}
    try:
        found = json.loads(path.read_text())
        if {name: found[name] for name in state} == state:
            return [{int(k): n for k, n in counts.items()} for counts in found["pixels"]]
        print(f"{domain.spec}: the data set has changed, its class statistics are counted anew")
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError):
        print(f"{path}: damaged, class statistics are counted anew")
    pixels = count(domain, workers)
    cache.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({**state, "pixels": pixels}), shared=True)
    return pixels


def fingerprint(domain: Domain) -> str:
    """Changes with the names and sizes of the label files and with the classes."""
    root = domain.root
    lines = [f"{os.path.relpath(sample.label, root)} {sample.label.stat().st_size}" for sample in domain.samples]
    digest = hashlib.sha256("\n".join([*lines, *domain.classes.names]).encode())
    digest.update(domain.classes.ids.tobytes())
    return digest.hexdigest()[:16]


def count(domain: Domain, workers: int = 0) -> ImagePixels:
    """Reads all label files."""

    def count_one(index: int) -> dict[int, int]:
        labels = domain.labels(index, resized=False)
        domain.check_size(index, labels)
        counts = torch.bincount(labels.flatten(), minlength=256)[:IGNORE].tolist()
        return {k: n for k, n in enumerate(counts) if n}

    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        results = pool.map(count_one, range(len(domain)))
        return list(progress(results, len(domain), f"class statistics of {domain.spec}", "image"))
