"""Ranks wait for each other on the GPU, within a stream, by flags in each other's memory."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def meeting_kernel(  # type: ignore[no-untyped-def]
    flags,  # addresses of every rank's flags [meetings, ranks] int32, in this rank's address space
    own,  # this rank's
    held,  # [meetings] int32: how often each meeting was held
    broken_off,  # int32: above 0, nobody is waited for
    meeting,
    rank,
    tries,  # how often a flag is looked at before its rank is given up
    RANKS: tl.constexpr,  # noqa: N803
):
    """What is before it on any rank is done, and seen by all, before what follows on this one."""
    number = tl.load(held + meeting) + 1
    tl.store(held + meeting, number)
    for peer in tl.static_range(RANKS):
        theirs = tl.load(flags + peer).to(tl.pointer_type(tl.int32))
        tl.atomic_xchg(theirs + meeting * RANKS + rank, number, sem="release", scope="sys")
    for peer in tl.static_range(RANKS):
        flag = own + meeting * RANKS + peer
        seen = tl.atomic_add(flag, 0, sem="acquire", scope="sys")
        left = tries
        while (seen < number) & (left > 0):
            seen = tl.atomic_add(flag, 0, sem="acquire", scope="sys")
            gone = tl.atomic_add(broken_off, 0, sem="relaxed", scope="sys")
            left = tl.where(gone > 0, 0, left - 1)
