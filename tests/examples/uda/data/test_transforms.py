from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from uda.data.transforms import denormalise, normalise, pad, random_crop, random_flip
from uda.runtime.rng import generator


def test_normalise_and_back():
    x = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(denormalise(normalise(x)), x)
    torch.testing.assert_close(normalise(torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)), torch.zeros(3, 1, 1))


@given(
    h=st.integers(1, 20), w=st.integers(1, 20), rows=st.integers(1, 25), cols=st.integers(1, 25), seed=st.integers(0, 9)
)
def test_crops_of_image_and_labels_agree(h, w, rows, cols, seed):
    labels = torch.arange(h * w).view(h, w) % 250
    image = labels.expand(3, h, w).float()
    x, y = random_flip(*random_crop(image, labels.byte(), (rows, cols), generator(seed)), generator(seed, "flip"))
    assert y.shape == (min(h, rows), min(w, cols))
    assert torch.equal(x, y.float().expand(3, -1, -1))


def test_crops_avoid_one_class():
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[:, 48:] = 1
    shares = [random_crop(torch.zeros(3, 64, 64), labels, (16, 16), generator(i))[1].float().mean() for i in range(50)]
    assert sum(0.25 < s < 0.75 for s in shares) > 40  # one draw alone hits the seam far less often


def test_one_draw_where_one_class_may_fill_the_crop():
    labels = torch.arange(64 * 64).view(64, 64).remainder(200).byte()
    gen, other = generator(0), generator(0)
    crop = random_crop(labels.expand(3, -1, -1), labels, (16, 20), gen, max_share=1)[1]
    top, left = (int(torch.randint(n, (), generator=other)) for n in (49, 45))
    assert torch.equal(crop, labels[top : top + 16, left : left + 20])
    assert torch.equal(gen.get_state(), other.get_state())


def test_padding():
    image, labels = torch.rand(3, 4, 5), torch.ones(4, 5, dtype=torch.uint8)
    x, y = pad(image, labels, (6, 5), 255)
    assert x.shape == (3, 6, 5) and y.shape == (6, 5)
    torch.testing.assert_close(x[:, :4], image)
    assert not normalise(x)[:, 4:].any()
    assert (y[4:] == 255).all() and (y[:4] == 1).all()
    assert pad(image, labels, (4, 3), 255) == (image, labels)  # never cut
