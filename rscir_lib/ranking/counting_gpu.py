"""How many scores lie above each of some levels, on a GPU: every score is compared with every level, in registers.

Triton comes with torch's CUDA builds. `evaluation._ranks_by_counting` does the same with torch alone, by writing every
comparison down; the tests hold the two together, in Triton's interpreter where there is no GPU.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

LEVELS, SCORES = 16, 256  # that one program compares with each other at a time


@triton.jit
def _count(scores, levels, greater, equal, n, r, LEVELS: tl.constexpr, SCORES: tl.constexpr):
    parts = tl.cdiv(r, LEVELS)
    row = (tl.program_id(0) // parts).to(tl.int64)
    of = tl.program_id(0) % parts * LEVELS + tl.arange(0, LEVELS)
    level = tl.load(levels + row * r + of, mask=of < r, other=0.0)[:, None]
    more = tl.zeros((LEVELS, SCORES), tl.int32)
    same = tl.zeros((LEVELS, SCORES), tl.int32)
    for start in range(0, n, SCORES):
        at = start + tl.arange(0, SCORES)
        score = tl.load(scores + row * n + at, mask=at < n, other=float("-inf"))[None, :]
        more += (score > level).to(tl.int32)
        same += ((score == level) & (at < n)[None, :]).to(tl.int32)
    tl.store(greater + row * r + of, tl.sum(more, axis=1), mask=of < r)
    tl.store(equal + row * r + of, tl.sum(same, axis=1), mask=of < r)


def count(scores: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of some levels (B, R) how many of its row's scores (B, N) are greater, and how many equal: (B, R) int32
    each. float64, no NaN."""
    scores, levels = scores.contiguous(), levels.contiguous()
    (b, n), r = scores.shape, levels.shape[1]
    greater, equal = (torch.empty((b, r), dtype=torch.int32, device=scores.device) for _ in range(2))
    with torch.cuda.device(scores.device) if scores.is_cuda else nullcontext():  # Triton takes the current one
        if b and r:
            _count[(b * triton.cdiv(r, LEVELS),)](scores, levels, greater, equal, n, r, LEVELS, SCORES)
    return greater, equal
