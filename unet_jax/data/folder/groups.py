"""Finds the patient that each case of a folder belongs to."""

import re

from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.pairing import Layout
from unet_jax.data.folder.splits import FEWEST_GROUPS


def find_groups(layout: Layout, regex: str) -> tuple[dict[str, str], list[str]]:
    """Find the patient of each case.

    Args:
        regex: regular expression that finds the patient in an id; "" takes the folder
            of the case. Of nested folders it takes the outermost level that has at
            least three.

    Returns:
        The group of every id (its folder where the expression finds none), and the
        problems.
    """
    groups = _patients(layout)
    if not regex:
        return groups, []
    try:
        pattern = re.compile(same_form(regex))
    except re.error as error:
        return groups, [
            f"data.group_regex: {regex!r} is no regular expression ({error}); fix it"
        ]
    problems = []
    for pair in layout.pairs:
        match = pattern.search(same_form(pair.id))
        found = match and (match[1] if pattern.groups else match[0])
        if found is None:
            what = "group 1 of " if match else ""
            problems.append(
                f"{pair.images[0]}: {what}data.group_regex {regex!r} does not match "
                f"its id {pair.id!r}; fix the expression"
            )
        else:
            groups[pair.id] = found
    return groups, problems


def _patients(layout: Layout) -> dict[str, str]:
    """Take the folder of each case; a patient's folder may hold one per visit."""
    folders = {pair.id: pair.patient.split("/") for pair in layout.pairs}
    groups: dict[str, str] = {}
    for level in range(1, 1 + max(map(len, folders.values()), default=0)):
        groups = {one: "/".join(names[:level]) or one for one, names in folders.items()}
        if len(set(groups.values())) >= FEWEST_GROUPS:
            break
    return groups
