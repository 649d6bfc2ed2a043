"""Which merges and expansions a kernel does, and what goes into one launch of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from entracte.residency.formats import Expansion, StoredTiles
from entracte.residency.merge import WeightMerge

from .merge_table import fits, fits_tiles


@dataclass(slots=True)
class LaunchGroup:
    """Merges of one launch. stored: how each weight is read, where that is as it is stored."""

    merges: list[WeightMerge] = field(default_factory=list)
    stored: list[StoredTiles] = field(default_factory=list)


@dataclass(slots=True)
class KernelWork:
    """groups: launches, after the expansions and before the merges, which are the rest."""

    groups: list[LaunchGroup]
    merges: list[WeightMerge]
    expansions: list[Expansion]


def group_for_kernel(
    merges: Sequence[WeightMerge], expansions: Sequence[Expansion], device: torch.device
) -> KernelWork:
    """Sort work by how the kernel reads weights: in bfloat16, or in one format as it is stored.

    A weight that is expanded and merged into is read once, as it is stored, if the kernel can.
    Expansions that neighbours can share, of which nothing is merged, are left as they are.
    """
    groups: dict[object, LaunchGroup] = {}
    plain: list[WeightMerge] = []
    waiting = {each.out.data_ptr(): each for each in expansions}
    for merge in merges:
        place = merge.weight.data_ptr()
        if merge.weight.device != device or not fits(merge):
            plain.append(merge)
        elif place in waiting and (tiles := waiting[place].tiles) is not None:
            del waiting[place]
            _add(groups, merge, tiles)
        else:
            groups.setdefault(None, LaunchGroup()).merges.append(merge)
    rest = []
    for each in waiting.values():
        alone = WeightMerge(each.out, each.out, ())
        tiles = None
        if each.out.device == device and not each.format.elementwise and fits_tiles(alone):
            tiles = each.tiles
        if tiles is None:
            rest.append(each)
        else:
            _add(groups, alone, tiles)
    return KernelWork(list(groups.values()), plain, rest)


def _add(groups: dict[object, LaunchGroup], merge: WeightMerge, tiles: StoredTiles) -> None:
    key = tiles.read, tiles.constants, bool(merge.adapters)
    group = groups.setdefault(key, LaunchGroup())
    group.merges.append(merge)
    group.stored.append(tiles)
