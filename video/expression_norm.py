"""Makes what tokens hear as strong as what they would otherwise have read: statistics of a base.

Source: FlashPortrait, the normalised facial expression block, as its released code has it (base is
what the other cross-attention gives), with tokens of speech in the place of tokens of a face.

Shape legend: B = batch, L = tokens of all chunks, chunk after chunk, D = channels, N = chunks,
G = groups of tokens sharing one time, T = tokens of a group.

The published block takes base and expression from one cross-attention, before its output
projection. Here speech is added after a layer, so the base is the prompt as the same tokens read it
there; a network without a prompt takes what the layer before has added to them.
"""

from typing import cast

import torch
from torch import nn

from video.dit_block import TransformerBlock

_EPS = 1e-5


def matched(heard_BLD: torch.Tensor, base_BLD: torch.Tensor, num_chunks: int) -> torch.Tensor:
    """What was heard, moved and scaled to the mean and the spread of the base, in its own dtype.

    One mean and one spread for each sample and chunk, over all its tokens and channels together:
    which token heard more than another stays. So a chunk does not depend on those beside it.
    """
    heard, base = (_rows(values, num_chunks) for values in (heard_BLD, base_BLD))
    spread = base.std(-1, keepdim=True) / (heard.std(-1, keepdim=True) + _EPS)
    made = (heard - heard.mean(-1, keepdim=True)) * spread + base.mean(-1, keepdim=True)
    return made.view(heard_BLD.shape).to(heard_BLD.dtype)


def _rows(values_BLD: torch.Tensor, num_chunks: int) -> torch.Tensor:
    """The values of each chunk as a row `[B, N, L / N * D]`, float32."""
    return values_BLD.float().reshape(values_BLD.shape[0], num_chunks, -1)


def base_of(
    block: nn.Module,
    before_BGTD: torch.Tensor,
    after_BGTD: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """What speech after a block is made as strong as, of every token."""
    if text is None:
        return after_BGTD - before_BGTD
    return cast(TransformerBlock, block).read_text(after_BGTD, *text)
