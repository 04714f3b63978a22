"""The picture of planned stages."""

import pytest

from unet_jax.report import stages


def test_every_stage_is_drawn_with_its_numbers(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        stages, "write_figure", lambda path, figure: drawn.append(figure)
    )
    network = stages.DrawnNetwork(
        "3d",
        (20, 64, 64),
        (32, 64, 128),
        ((1, 3, 3),) * 3,
        ((1, 2, 2), (2, 2, 2)),
        (2,) * 3,
    )
    stages.write_stages(tmp_path / "a.png", [network, network])
    (figure,) = drawn
    assert len(figure.axes) == 2
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "32 x 20x64x64\n2 of 1x3x3" in texts
    assert "128 x 10x16x16\n2 of 1x3x3" in texts
    assert texts.count("stride 1x2x2") == 1
    assert "64 x 20x32x32" in texts  # the decoder has no coarsest stage
    assert "128 x 10x16x16" not in texts
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert widths == pytest.approx([5, 5, 6, 6, 7])
