"""How many join between two steps: whoever streams waits for them meanwhile. Pure."""

from typing import Sequence

# A picture takes 13 ms of an H200, a prompt of 321 tokens 5 ms, a step 5 ms: with two pictures a
# step comes 45 ms after the one before, with four 80 ms. The goal is 60 ms at most.
PICTURES_BESIDE_OTHERS = 2


def may_join_together(pictures: Sequence[int], beside: int) -> bool:
    """Whether these requests join before the next step.

    :param pictures: of each.
    :param beside: how many others wait for the next step.
    """
    return len(pictures) == 1 or beside == 0 or sum(pictures) <= PICTURES_BESIDE_OTHERS
