"""Memory pages of large tensors on the CPU."""

import os


def use_huge_pages() -> None:
    """Let torch ask Linux for huge pages: a large tensor then takes a few page faults instead of thousands.

    Takes effect only before torch makes its first tensor. Settings already in the environment are kept.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
