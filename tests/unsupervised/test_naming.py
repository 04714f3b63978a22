import numpy as np

from unet_jax.data.case import Case
from unet_jax.unsupervised.naming import name_clusters

VALUES = np.array([10.0, 60.0, 70.0, 200.0])


def _case(clusters, label):
    image = VALUES[clusters][..., None]
    return clusters, Case("a", image, label, None, "a", reference=((80.0, 50.0),))


def test_as_many_clusters_as_classes_are_permuted():
    clusters = np.array([[0, 0, 1, 1, 3, 3]])
    label = np.array([[2, 2, 0, 0, 1, 0]])
    groups = name_clusters([_case(clusters, label)], num_clusters=4, num_classes=4)
    assert groups[:3] == ((1,), (3,), (0,))
    assert groups[3] == (2,)  # no pixel has it: it fills the gap


def test_more_clusters_are_merged_by_intensity_before_a_label_is_looked_at():
    rng = np.random.default_rng(0)
    cases = [_case(rng.integers(0, 4, (8, 9)), None) for _ in range(2)]
    labelled = [
        (clusters, _case(clusters, np.array([1, 2, 0, 0])[clusters])[1])
        for clusters, _ in cases
    ]
    # Labels would put 2 and 3 together; 60 and 70 are the alike ones.
    groups = name_clusters(labelled, num_clusters=6, num_classes=3)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert any({1, 2} <= set(group) for group in groups)
    assert (3,) in groups
