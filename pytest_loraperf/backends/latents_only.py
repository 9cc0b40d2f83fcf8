"""What stands where the VAE is, in a pipeline that has none."""

from __future__ import annotations

from typing import Any

import torch

from pytest_loraperf.errors import ModelError


def has_image(pipe: Any) -> bool:
    """Whether the pipeline decodes images, and not latents only."""
    return not isinstance(decoder(pipe), LatentsOnly)


def decoder(pipe: Any) -> torch.nn.Module:
    """Return what decodes latents: ``pipe.vae``, or ``pipe.vae_decoder`` where there are two halves."""
    found: torch.nn.Module = pipe.vae if hasattr(pipe, "vae") else pipe.vae_decoder
    return found


class LatentsOnly(torch.nn.Module):
    """Stands where the VAE is, so that DiffSynth's ``__call__`` runs to its end; it decodes nothing."""

    def decode(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return a placeholder of shape (1, 3, 8, 8), which nobody looks at."""
        return torch.zeros(1, 3, 8, 8, dtype=latents.dtype)

    def forward(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return the same placeholder, for pipelines that call their decoder."""
        return self.decode(latents)

    def encode(self, *_: Any, **__: Any) -> torch.Tensor:
        """Refuse an image.

        Raises:
            ModelError: always; there is nothing that could encode it.
        """
        raise ModelError(
            "synthetic:full has no VAE and takes no image; leave the image out, "
            "or use synthetic:tiny or a pretrained model"
        )
