from __future__ import annotations

import pytest
from uda.settings import Settings
from uda.training.domains import open_data


def test_layouts_are_known_before_files_are_looked_for():
    with pytest.raises(ValueError, match=r"^--target: expected LAYOUT:PATH with LAYOUT one of gta5, .*, got 'gta7:b'"):
        open_data(Settings(source="gta5:/nonexistent", target="gta7:b"))
    with pytest.raises(ValueError, match=r"^--source: expected LAYOUT:PATH .*, got 'a'"):
        open_data(Settings(source="a", target="cityscapes:b"))
