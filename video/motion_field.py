"""The linear core of the motion codec: cell-wise principal components of displacement fields.

A field describes four frames relative to the portrait at one head pose: per frame the backward
flow (x, y; pixels of the 256-pixel canonical picture) and the share of surface that the portrait
does not show (mouth interior, closed lids). Portraits are aligned, so a cell of the grid always
sees the same part of a face, and its own few components hold nearly all of its motion. No
network is needed to open a mouth by the right amount: this projection already does it.

Shape legend: B = batch, T = latent frames, F = frames per latent (4), Q = (flow x, flow y, hidden),
S = field side (64), G = grid side (8), K = components per cell, D = values per cell.
"""

import torch
from einops import rearrange
from torch import nn

HIDDEN_SCALE = 6.0  # weight of "not visible" beside pixels of flow when components are found

EASE = 0.4  # share of the jump from latent to latent that its first frame keeps


class MotionField(nn.Module):
    """Project displacement fields to latents and back, cell by cell.

    Buffers: `mean_GGD`, `basis_GGKD` (orthonormal rows) and `scale_GGK`, which brings the latents
    to about unit variance where a cell moves and to less where it does not.
    """

    mean_GGD: torch.Tensor
    basis_GGKD: torch.Tensor
    scale_GGK: torch.Tensor

    def __init__(self, *, grid: int, side: int, components: int, frames_per_latent: int) -> None:
        """Create an empty core; `fit_motion_field` or a weights file fills it."""
        super().__init__()
        if side % grid:
            raise ValueError(f"field side {side} must be a multiple of the grid {grid}")
        self.grid, self.side, self.frames = grid, side, frames_per_latent
        self.cell = side // grid
        values = frames_per_latent * 3 * self.cell * self.cell
        self.register_buffer("mean_GGD", torch.zeros(grid, grid, values))
        self.register_buffer("basis_GGKD", torch.zeros(grid, grid, components, values))
        self.register_buffer("scale_GGK", torch.ones(grid, grid, components))

    def cells(self, field_BTFQSS: torch.Tensor) -> torch.Tensor:
        """Cut fields [B, T, F, Q, S, S] into cells [B, T, G, G, D], hidden share weighted."""
        weight_Q = field_BTFQSS.new_tensor([1.0, 1.0, HIDDEN_SCALE])
        weighted = field_BTFQSS * weight_Q[:, None, None]
        return rearrange(
            weighted, "b t f q (g h) (k w) -> b t g k (f q h w)", h=self.cell, w=self.cell
        )

    def encode(self, field_BTFQSS: torch.Tensor) -> torch.Tensor:
        """Return latents [B, K, T, G, G] of fields [B, T, F, Q, S, S]."""
        centred = self.cells(field_BTFQSS) - self.mean_GGD
        coefficients = torch.einsum("btghd,ghkd->bktgh", centred, self.basis_GGKD)
        return coefficients / rearrange(self.scale_GGK, "g h k -> k 1 g h")

    def decode(self, latents_BKTGG: torch.Tensor) -> torch.Tensor:
        """Return fields [B, T, F, Q, S, S] of latents [B, K, T, G, G]."""
        scaled = latents_BKTGG * rearrange(self.scale_GGK, "g h k -> k 1 g h")
        cells = torch.einsum("bktgh,ghkd->btghd", scaled, self.basis_GGKD) + self.mean_GGD
        field = rearrange(
            cells,
            "b t g k (f q h w) -> b t f q (g h) (k w)",
            f=self.frames,
            q=3,
            h=self.cell,
            w=self.cell,
        )
        weight_Q = field.new_tensor([1.0, 1.0, HIDDEN_SCALE])
        return field / weight_Q[:, None, None]


def fit_motion_field(core: MotionField, fields_NFQSS: torch.Tensor) -> float:
    """Find each cell's components from N sample fields; return the share of energy they keep.

    The scale of a component is its standard deviation, but never less than a fifth of the
    overall mean, so that still cells (background) do not amplify what little they carry.
    """
    cells_NGGD = core.cells(fields_NFQSS[:, None])[:, 0]
    components = core.basis_GGKD.shape[2]
    mean_GGD = cells_NGGD.mean(0)
    kept = total = 0.0
    deviation_GGK = torch.zeros_like(core.scale_GGK)
    for row in range(core.grid):
        for column in range(core.grid):
            centred_ND = (cells_NGGD[:, row, column] - mean_GGD[row, column]).double()
            covariance_DD = centred_ND.T @ centred_ND / len(centred_ND)
            values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
            core.basis_GGKD[row, column] = vectors_DD[:, -components:].flip(1).T.float()
            variance_K = values_D[-components:].flip(0).clamp_min(0)
            deviation_GGK[row, column] = variance_K.sqrt().float()
            kept += float(variance_K.sum())
            total += float(values_D.clamp_min(0).sum())
    core.mean_GGD.copy_(mean_GGD)
    floor = 0.2 * float(deviation_GGK.square().mean().sqrt())
    core.scale_GGK.copy_(deviation_GGK.clamp_min(floor))
    return kept / max(total, 1e-12)


def ease(field_BTFQSS: torch.Tensor, last_BQSS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Close the jump from latent to latent over the latent's frames; return the last frame too.

    Motion within a latent is smooth by its components, but latents that were generated do not quite
    meet. The first frame keeps `EASE` of the jump to it, the next ones ever less, so that what
    moves evenly comes hardly later.
    """
    share_F = EASE ** torch.arange(1.0, field_BTFQSS.shape[2] + 1.0, device=field_BTFQSS.device)
    eased = []
    for field_BFQSS in field_BTFQSS.unbind(1):
        jump_BQSS = last_BQSS - field_BFQSS[:, 0]
        eased.append(field_BFQSS + jump_BQSS[:, None] * share_F.to(jump_BQSS)[:, None, None, None])
        last_BQSS = eased[-1][:, -1]
    return torch.stack(eased, dim=1), last_BQSS
