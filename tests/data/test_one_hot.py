import numpy as np

from unet_jax.data.case import Case
from unet_jax.data.one_hot import WithOneHot
from unet_jax.data.pipeline import make_train_iterator
from unet_jax.data.prepared import PreparedCases


def test_classes_are_channels_of_every_region():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 5, 3, 2)).astype(np.float32)
    labels = rng.integers(0, 4, (4, 5, 3)).astype(np.int16)
    expected = np.concatenate([image, np.eye(4)[labels][..., 1:]], -1)
    view = WithOneHot(image, labels, 3)
    assert view.shape == expected.shape
    assert view.ndim == 4
    np.testing.assert_array_equal(np.asarray(view), expected.astype(np.float32))
    turned = view.transpose((2, 0, 1, 3))
    region = (slice(1, 3), slice(0, 2), slice(4, 5))
    np.testing.assert_array_equal(
        turned[region], expected.transpose(2, 0, 1, 3)[region].astype(np.float32)
    )


def test_training_crops_have_the_classes_of_the_first_stage():
    previous = np.random.default_rng(0).integers(0, 3, (6, 7))
    image = np.stack([np.arange(42.0).reshape(6, 7), previous], -1)
    cases = [Case("a", image.astype(np.float32), np.zeros((6, 7), int), None, "a")]
    prepared = PreparedCases(
        cases,
        lambda case: (case.image, case.label),
        num_classes=3,
        spatial_dims=2,
        by_slice=False,
        previous_classes=2,
        cache_bytes=10**6,
        seed=0,
    )

    def batch(change=None):
        batches = make_train_iterator(
            prepared,
            seed=0,
            global_batch_size=4,
            patch_size=(4, 4),
            foreground_oversampling=0.0,
            change=change,
            num_threads=0,
        )
        return next(batches)["image"]

    crops = batch()
    assert crops.shape == (4, 4, 4, 3)
    expected = np.eye(3)[previous].reshape(-1, 3)[crops[..., 0].astype(int)]
    np.testing.assert_array_equal(crops[..., 1:], expected[..., 1:])

    def change(crop, rng):
        crop[..., 1:] = rng.random()

    changed = batch(change)
    np.testing.assert_array_equal(changed[..., 0], crops[..., 0])
    assert len(np.unique(changed[..., 1:])) == 4  # each crop has draws of its own
    np.testing.assert_array_equal(batch(change), changed)
