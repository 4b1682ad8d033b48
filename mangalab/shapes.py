"""Exact parameter counts of published transformer shapes, from their configuration alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NAMES = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "bert": (
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    ),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Widths of a transformer; every count below is a number of parameters.

    `family` is llama (pre-norm RMSNorm, gated feed-forward, no biases), bert (LayerNorm, biases,
    pooler) or distilbert (bert without segment embeddings and pooler).
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    family: str = "llama"
    tied: bool = False
    positions: int = 0
    segments: int = 0

    @classmethod
    def from_config(cls, config: object, name: str = "") -> "Shape":
        """Shape of a Hugging Face config object or its dict (model types llama, mistral, bert,
        distilbert). Raises ValueError for other types and for Llama variants with biases."""
        c = dict(config) if isinstance(config, Mapping) else config.to_dict()
        kind = c.get("model_type", "")
        name = name or c.get("_name_or_path") or c.get("name_or_path") or kind
        if kind in ("llama", "mistral"):
            return cls._from_llama(c, name)
        if kind == "bert":
            return _bert(
                name, c["num_hidden_layers"], c["hidden_size"], c["num_attention_heads"],
                c["intermediate_size"], c["vocab_size"], c["max_position_embeddings"],
                c["type_vocab_size"],
            )  # fmt: skip
        if kind == "distilbert":
            return _distilbert(
                name, c["n_layers"], c["dim"], c["n_heads"], c["hidden_dim"], c["vocab_size"],
                c["max_position_embeddings"],
            )  # fmt: skip
        raise ValueError(
            f"model type {kind!r} has no shape rule: use llama, mistral, bert or distilbert, "
            "or build Shape(...) by hand"
        )

    @classmethod
    def _from_llama(cls, c: Mapping, name: str) -> "Shape":
        if c.get("attention_bias") or c.get("mlp_bias"):
            raise ValueError(
                f"{name} has biases in its linears, which the llama rule does not count"
            )
        heads = c["num_attention_heads"]
        return cls(
            name=name,
            layers=c["num_hidden_layers"],
            hidden=c["hidden_size"],
            heads=heads,
            kv_heads=c.get("num_key_value_heads") or heads,
            head_dim=c.get("head_dim") or c["hidden_size"] // heads,
            intermediate=c["intermediate_size"],
            vocab=c["vocab_size"],
            tied=bool(c.get("tie_word_embeddings", False)),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear maps of one layer: name -> (n_in, n_out); PyTorch stores n_out x n_in."""
        d, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(d, q), (d, kv), (d, kv), (q, d)]
        f = self.intermediate
        ffn = [(d, f), (d, f), (f, d)] if self.family == "llama" else [(d, f), (f, d)]
        return dict(zip(_NAMES[self.family], attention + ffn, strict=True))

    def select(self, targets: str | Iterable[str]) -> dict[str, tuple[int, int]]:
        """The linears whose name, or the end of it after a dot, is in `targets`."""
        if targets == "all-linear":
            return self.linears
        wanted = [targets] if isinstance(targets, str) else list(targets)
        chosen = {}
        for target in wanted:
            hits = {
                n: s for n, s in self.linears.items() if n == target or n.endswith("." + target)
            }
            if not hits:
                raise ValueError(
                    f"{self.name} has no linear module {target!r}: choose from "
                    f"{', '.join(self.linears)} or 'all-linear'"
                )
            chosen |= hits
        return chosen

    @property
    def linear_parameters(self) -> int:
        """Weights of the layers' linears, without biases: what 4-bit loading quantises."""
        return self.layers * sum(n_in * n_out for n_in, n_out in self.linears.values())

    @property
    def bias_parameters(self) -> int:
        """Biases of the layers' linears (none in the llama family)."""
        if self.family == "llama":
            return 0
        return self.layers * sum(n_out for _, n_out in self.linears.values())

    @property
    def embedding_parameters(self) -> int:
        """Token, position and segment embeddings."""
        return (self.vocab + self.positions + self.segments) * self.hidden

    @property
    def head_parameters(self) -> int:
        """Output projection: nothing when tied to the embedding, nor in a bare encoder."""
        return self.vocab * self.hidden if self.family == "llama" and not self.tied else 0

    @property
    def norm_parameters(self) -> int:
        """Two norms a layer and one more (after the layers, or after the embeddings in BERT)."""
        width = self.hidden if self.family == "llama" else 2 * self.hidden
        return (2 * self.layers + 1) * width

    @property
    def pooler_parameters(self) -> int:
        """BERT's dense layer on the first token."""
        return self.hidden**2 + self.hidden if self.family == "bert" else 0

    @property
    def parts(self) -> dict[str, int]:
        """All parameters by part; they add up to `parameters`."""
        per_module = {n: self.layers * a * b for n, (a, b) in self.linears.items()}
        rest = {
            "embeddings": self.embedding_parameters,
            "head": self.head_parameters,
            "norms": self.norm_parameters,
            "biases": self.bias_parameters,
            "pooler": self.pooler_parameters,
        }
        return per_module | {k: v for k, v in rest.items() if v}

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        return sum(self.parts.values())


def _bert(
    name: str,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    vocab: int = 30522,
    positions: int = 512,
    segments: int = 2,
) -> Shape:
    return Shape(
        name, layers, hidden, heads, heads, hidden // heads, intermediate, vocab,
        family="bert", tied=True, positions=positions, segments=segments,
    )  # fmt: skip


def _distilbert(
    name: str,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    vocab: int = 30522,
    positions: int = 512,
) -> Shape:
    return Shape(
        name, layers, hidden, heads, heads, hidden // heads, intermediate, vocab,
        family="distilbert", tied=True, positions=positions,
    )  # fmt: skip


# From the config.json that each publisher ships with the weights.
SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256),
        Shape("Llama-3-70B", 80, 8192, 64, 8, 128, 28672, 128256),
        Shape("Llama-2-7B", 32, 4096, 32, 32, 128, 11008, 32000),
        Shape("Llama-2-13B", 40, 5120, 40, 40, 128, 13824, 32000),
        Shape("LLaMA-1-65B", 80, 8192, 64, 64, 128, 22016, 32000),
        Shape("SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, tied=True),
        _bert("all-MiniLM-L6-v2", 6, 384, 12, 1536),
        _bert("MiniLM-L12-H384", 12, 384, 12, 1536),
        _distilbert("distilbert-base-uncased", 6, 768, 12, 3072),
        _distilbert("distilbert-base-multilingual-cased", 6, 768, 12, 3072, vocab=119547),
    )
}
