"""Spectrum toolkit: what a weight update looks like through its singular values.

An update is either :class:`FactoredUpdate` (LoRA, never multiplied out) or :class:`DenseUpdate`
(full fine-tuning). Both answer the same questions; every answer says by which engine it was found
and how wrong it can be.

=============  ====================================================================
``updates``    the two kinds of update, sums of adapters, batched spectra
``engines``    dense SVD, Gram eigenvalues, randomised SVD, with error bounds
``measures``   energy curve, rank for an energy, effective and stable rank
``noise``      Marchenko-Pastur edge, noise baseline, sign-flip null
``subspace``   overlap and principal angles between two updates
``intrusion``  new singular directions of a tuned weight
``apply``      put updates into a model and take them out again
``sources``    updates from a live PEFT model, an adapter folder, two checkpoints
``report``     one row per module for a whole model
=============  ====================================================================
"""

from mangalab.spectrum.apply import applied
from mangalab.spectrum.engines import SVD, Spectrum, dense_spectrum, top_svd
from mangalab.spectrum.intrusion import Intruders, intruders, left_singular_vectors
from mangalab.spectrum.measures import (
    effective_rank,
    energy_curve,
    participation_ratio,
    rank_for_energy,
    stable_rank,
)
from mangalab.spectrum.noise import NoiseEdge, flip_null, noise_edge, noise_energy, noise_sigma
from mangalab.spectrum.report import parse_name, summary
from mangalab.spectrum.sources import (
    AdapterError,
    CheckpointPair,
    updates_from_adapter,
    updates_from_checkpoints,
    updates_from_peft,
)
from mangalab.spectrum.subspace import overlap, overlap_grid, principal_angles, random_overlap
from mangalab.spectrum.updates import DenseUpdate, FactoredUpdate, Update, combine, spectra

__all__ = [
    "SVD",
    "AdapterError",
    "CheckpointPair",
    "DenseUpdate",
    "FactoredUpdate",
    "Intruders",
    "NoiseEdge",
    "Spectrum",
    "Update",
    "applied",
    "combine",
    "dense_spectrum",
    "effective_rank",
    "energy_curve",
    "flip_null",
    "intruders",
    "left_singular_vectors",
    "noise_edge",
    "noise_energy",
    "noise_sigma",
    "overlap",
    "overlap_grid",
    "parse_name",
    "participation_ratio",
    "principal_angles",
    "random_overlap",
    "rank_for_energy",
    "spectra",
    "stable_rank",
    "summary",
    "top_svd",
    "updates_from_adapter",
    "updates_from_checkpoints",
    "updates_from_peft",
]
