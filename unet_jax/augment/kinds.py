"""The kinds of augmentations: frozen dataclasses of options, with one method each."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from unet_jax.augment.crop_grid import CropGrid
from unet_jax.augment.draws import Draw
from unet_jax.augment.option import Probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What all augmentations have: options and a count of random numbers."""

    probability: Probability = 0.0

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> "Augmentation":
        """Check options, and make the augmentation; lists count as tuples.

        Integers count as floats.

        Raises:
            ValueError: a value is out of bounds.
        """
        types = typing.get_type_hints(cls, include_extras=True)
        accepted = {}
        for name, value in options.items():
            (check,) = types[name].__metadata__
            try:
                accepted[name] = check.accept(value)
            except ValueError as error:
                raise ValueError(f"{name} is {value!r}; expected {error}") from None
        return cls(**accepted)

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """Read what each option means from ``Attributes`` in the docstrings."""
        found: dict[str, str] = {}
        for one in reversed(cls.__mro__):
            text = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")[2]
            lines = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
            found |= {name: " ".join(meaning.split()) for name, meaning in lines}
        return found

    @property
    def is_off(self) -> bool:
        """Whether it never changes anything, and stays out of the program."""
        return self.probability == 0

    def count(self, image_shape: tuple[int, ...]) -> int:
        """Return how many uniform numbers an example needs."""
        raise NotImplementedError


class Linear(Augmentation):
    """Moves pixels by a matrix about the centre of the image."""

    def matrix(self, draw: Draw, grid: CropGrid) -> Float[Array, "ndim ndim"]:
        """Return the matrix that takes an output pixel to the place it reads.

        It is the identity where the augmentation does not happen.
        """
        raise NotImplementedError


class Value(Augmentation):
    """Changes the values of an image and leaves every pixel in place."""

    def change(
        self, draw: Draw, image: Float[Array, "*spatial channels"]
    ) -> Float[Array, "*spatial channels"]:
        """Change an image that is float32 or wider, and keep its dtype.

        It stays the same to the bit where the augmentation does not happen.
        """
        raise NotImplementedError
