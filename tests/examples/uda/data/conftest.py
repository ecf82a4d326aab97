from __future__ import annotations

import numpy as np
import pytest
from image_files import write


@pytest.fixture
def gta5(tmp_path):
    raw = np.array([*range(35), *[255] * 5], dtype=np.uint8).reshape(5, 8)  # every raw id
    write(tmp_path / "images" / "00001.png", np.full((5, 8, 3), 7, np.uint8))
    write(tmp_path / "labels" / "00001.png", raw, palette=True)
    return tmp_path
