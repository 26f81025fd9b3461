"""The Triton form of counting; Triton comes with torch's CUDA builds. Without a GPU, its interpreter can run it."""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

LEVELS, SCORES = 16, 256  # that one program compares with each other at a time


@triton.jit  # type: ignore[untyped-decorator]
def _count(scores, low, high, greater, near, n, r, LEVELS: tl.constexpr, SCORES: tl.constexpr):  # type: ignore[no-untyped-def]
    parts = tl.cdiv(r, LEVELS)
    row = (tl.program_id(0) // parts).to(tl.int64)
    at_level = tl.program_id(0) % parts * LEVELS + tl.arange(0, LEVELS)
    least = tl.load(low + row * r + at_level, mask=at_level < r, other=0.0)[:, None]
    most = tl.load(high + row * r + at_level, mask=at_level < r, other=0.0)[:, None]
    above = tl.zeros((LEVELS, SCORES), tl.int32)
    within = tl.zeros((LEVELS, SCORES), tl.int32)
    for start in range(0, n, SCORES):
        at = start + tl.arange(0, SCORES)
        score = tl.load(scores + row * n + at, mask=at < n, other=float("-inf"))[None, :]
        above += (score > most).to(tl.int32)
        within += ((score >= least) & (score <= most)).to(tl.int32)
    tl.store(greater + row * r + at_level, tl.sum(above, axis=1), mask=at_level < r)
    tl.store(near + row * r + at_level, tl.sum(within, axis=1), mask=at_level < r)


def count(scores: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For levels from `low` to `high` (B, R) how many of the row's scores (B, n) are greater, and how many within: (B,
    R) int32 each. float64, levels finite, no NaN."""
    scores, low, high = scores.contiguous(), low.contiguous(), high.contiguous()
    (b, n), r = scores.shape, low.shape[1]
    greater, near = (torch.empty((b, r), dtype=torch.int32, device=scores.device) for _ in range(2))
    with torch.cuda.device(scores.device) if scores.is_cuda else nullcontext():  # Triton takes the current one
        if b and r:
            _count[(b * triton.cdiv(r, LEVELS),)](scores, low, high, greater, near, n, r, LEVELS, SCORES)
    return greater, near
