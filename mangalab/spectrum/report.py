"""One row per module for a whole model, ready for JSON."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mangalab.spectrum import measures
from mangalab.spectrum.apply import find_weight
from mangalab.spectrum.engines import Spectrum
from mangalab.spectrum.noise import NoiseEdge, noise_edge
from mangalab.spectrum.updates import FactoredUpdate, Update, spectra

RANKS = (1, 2, 4, 8, 16, 32, 64)


def parse_name(name: str) -> tuple[int | None, str]:
    """(layer, module within the layer): ``model.layers.3.mlp.up_proj`` -> (3, "mlp.up_proj").

    The layer is the first number in the path; without one it is ``None``.
    """
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return int(part), ".".join(parts[position + 1 :])
    return None, name


def summary(
    updates: Mapping[str, Update],
    weights: nn.Module | Mapping[str, Tensor] | None = None,
    ranks: Sequence[int] = RANKS,
    k: int | None = None,
    sigma: Mapping[str, float] | None = None,
) -> list[dict]:
    """Rows in the order of ``updates``; a lazy mapping is read once, one update at a time.

    ``weights`` (a model, or tensors by the same names) adds ``relative`` = |dW| / |W|; ``k`` asks
    for the k largest values only; ``sigma`` gives the noise per entry for factored updates, which
    have no noise edge of their own. ``energy`` holds the share at each of ``ranks``. What cannot
    be known (from incomplete values, without W, without noise) is ``None``, never NaN.
    """
    rows: dict[str, dict] = {}
    factored: dict[str, FactoredUpdate] = {}
    for name, update in updates.items():
        rows[name] = {}
        if isinstance(update, FactoredUpdate):
            factored[name] = update
        else:
            rows[name] = _row(name, update, update.spectrum(k), weights, ranks, sigma)
    for name, spectrum in spectra(factored).items():
        rows[name] = _row(name, factored[name], spectrum, weights, ranks, sigma)
    return list(rows.values())


def _row(
    name: str,
    update: Update,
    spectrum: Spectrum,
    weights: nn.Module | Mapping[str, Tensor] | None,
    ranks: Sequence[int],
    sigma: Mapping[str, float] | None,
) -> dict:
    values, total, whole = spectrum.values, spectrum.energy, spectrum.complete
    layer, module = parse_name(name)
    norm = _weight_norm(name, update, weights)
    edge = _edge(spectrum, (sigma or {}).get(name))
    return {
        "name": name,
        "layer": layer,
        "module": module,
        "shape": list(update.shape),
        "max_rank": update.max_rank,
        "method": spectrum.method,
        "complete": whole,
        "error_bound": spectrum.error_bound,
        "frobenius": total**0.5,
        "spectral_norm": float(values[0]),
        "relative": total**0.5 / norm if norm else None,
        "ranks": list(ranks),
        "energy": _energies(spectrum, ranks),
        "rank_90": measures.rank_for_energy(values, 0.90, total),
        "rank_99": measures.rank_for_energy(values, 0.99, total),
        "stable_rank": measures.stable_rank(values, total),
        "effective_rank": measures.effective_rank(values) if whole else None,
        "participation": measures.participation_ratio(values) if whole else None,
        "edge": edge.edge if edge else None,
        "above_edge": edge.above if edge else None,
    }


def _energies(spectrum: Spectrum, ranks: Sequence[int]) -> list[float | None]:
    curve = measures.energy_curve(spectrum.values, spectrum.energy).tolist()
    beyond = curve[-1] if spectrum.complete else None
    return [min(curve[rank - 1], 1.0) if rank <= len(curve) else beyond for rank in ranks]


def _edge(spectrum: Spectrum, sigma: float | None) -> NoiseEdge | None:
    full = spectrum.complete and len(spectrum.values) == min(spectrum.shape)
    if sigma is None and not (full and float(spectrum.values.median()) > spectrum.error_bound):
        return None
    return noise_edge(spectrum.values, spectrum.shape, sigma)


def _weight_norm(
    name: str, update: Update, weights: nn.Module | Mapping[str, Tensor] | None
) -> float | None:
    if update.base_norm is not None or weights is None:
        return update.base_norm
    weight = find_weight(weights, name) if isinstance(weights, nn.Module) else weights[name]
    if not weight.is_floating_point():  # a quantized base: its codes have no norm worth having
        return None
    return float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64))
