// The arithmetic of mangalab/sizing, function by function, and the calculator that shows it.
// tests/test_estimator_page.py holds both to the same results.
(() => {
  "use strict";
  const FAMILIES = {
    llama: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    bert: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
      "intermediate.dense", "output.dense"],
    distilbert: ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
  };
  const PRECISIONS = {
    fp32: { weight: 4, gradient: 4, master: 0, moment: 4, compute: 4 },
    bf16: { weight: 2, gradient: 2, master: 0, moment: 2, compute: 2 },
    mixed: { weight: 2, gradient: 2, master: 4, moment: 4, compute: 2 },
    autocast: { weight: 4, gradient: 4, master: 0, moment: 4, compute: 2 },
  };
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

  // ---------------------------------------------------------------------- shapes
  const causal = (s) => s.family === "llama";
  const linears = (s) => {
    const d = s.hidden, q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim, f = s.intermediate;
    const pairs = [[d, q], [d, kv], [d, kv], [q, d], ...(causal(s) ? [[d, f], [d, f], [f, d]] : [[d, f], [f, d]])];
    return FAMILIES[s.family].map((name, i) => ({ name, n_in: pairs[i][0], n_out: pairs[i][1], place: i }));
  };
  const linearParameters = (s) => s.layers * sum(linears(s).map((l) => l.n_in * l.n_out));
  const biases = (s) => (causal(s) ? 0 : s.layers * sum(linears(s).map((l) => l.n_out)));
  const headParameters = (s) => (causal(s) && !s.tied ? s.vocab * s.hidden : 0);
  const norms = (s) => (2 * s.layers + 1) * (causal(s) ? 1 : 2) * s.hidden;
  const pooler = (s) => (s.family === "bert" ? s.hidden ** 2 + s.hidden : 0);
  const parameters = (s) => linearParameters(s) + biases(s) + norms(s) + pooler(s) + headParameters(s)
    + (s.vocab + s.positions + s.segments) * s.hidden;

  function shapeOf(config, name) {
    const need = (key) => {
      if (!Number.isFinite(config[key])) throw new Error(`${key} is missing or no number`);
      return config[key];
    };
    const kind = config.model_type;
    if (kind === "llama" || kind === "mistral") {
      if (config.attention_bias || config.mlp_bias) throw new Error("linears with biases have no rule");
      const heads = need("num_attention_heads"), hidden = need("hidden_size");
      return { name, layers: need("num_hidden_layers"), hidden, heads, kv_heads: config.num_key_value_heads || heads,
        head_dim: config.head_dim || Math.floor(hidden / heads), intermediate: need("intermediate_size"),
        vocab: need("vocab_size"), family: "llama", tied: Boolean(config.tie_word_embeddings), positions: 0, segments: 0 };
    }
    const names = { bert: ["num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"],
      distilbert: ["n_layers", "dim", "n_heads", "hidden_dim"] }[kind];
    if (!names) throw new Error(`model_type ${JSON.stringify(kind)} has no rule: llama, mistral, bert or distilbert`);
    const [layers, hidden, heads, intermediate] = names.map(need);
    return { name, layers, hidden, heads, kv_heads: heads, head_dim: Math.floor(hidden / heads), intermediate,
      vocab: need("vocab_size"), family: kind, tied: true, positions: need("max_position_embeddings"),
      segments: kind === "bert" ? need("type_vocab_size") : 0 };
  }

  // ---------------------------------------------------------------------- plan
  const full = (p) => p.method === "full";
  const generates = (p) => p.method.startsWith("inference");
  const quantised = (p) => p.method === "qlora" || p.method === "inference-4bit";
  const kept = (p) => (full(p) ? PRECISIONS[p.precision] : PRECISIONS.fp32);
  const compute = (p) => PRECISIONS[p.precision].compute;
  const stream = (p) => (p.precision === "autocast" ? 4 : compute(p));
  const positions = (p) => p.length + (p.method === "prompt" ? p.virtual_tokens : 0);
  const tokens = (p) => p.batch * positions(p);
  const adapted = (p) => {
    if (p.method !== "lora" && p.method !== "qlora") return [];
    if (p.targets === "all-linear") return linears(p.shape);
    return linears(p.shape).filter((l) => p.targets.some((t) => l.name === t || l.name.endsWith(`.${t}`)));
  };
  const bits = (p) => 4 + (p.double ? 8 / p.block + 32 / (p.block * 256) : 32 / p.block);
  function trained(p) {
    const s = p.shape;
    if (generates(p)) return 0;
    if (full(p)) return parameters(s);
    if (p.method === "prompt") return p.virtual_tokens * s.hidden;
    if (p.method === "prefix") return 2 * s.layers * p.virtual_tokens * s.kv_heads * s.head_dim;
    return s.layers * p.rank * sum(adapted(p).map((l) => l.n_in + l.n_out));
  }

  // ---------------------------------------------------------------------- activations of a layer, bytes a token
  function normBytes(p) {
    const d = p.shape.hidden;
    const own = causal(p.shape) ? 2 * (4 * d + 4) : 2 * (stream(p) * d + 8);
    if (!full(p)) return own;
    const readers = p.precision === "autocast" ? 3 + (causal(p.shape) ? 2 : 1) : 2;
    return own + (causal(p.shape) ? 2 * stream(p) * d : 0) + readers * compute(p) * d;
  }
  const droppedMaps = (p) => p.dropout && !causal(p.shape) && p.mask_bytes > 1;
  function maps(p) {
    const a = compute(p);
    let each = causal(p.shape) ? 4 + (a < 4 ? a : 0) : a;
    if (droppedMaps(p)) each = 12;
    else if (p.dropout && !causal(p.shape)) each += a + p.mask_bytes;
    return p.shape.heads * positions(p) * each;
  }
  function attention(p) {
    const s = p.shape, a = compute(p), q = s.heads * s.head_dim;
    const kv = s.kv_heads * s.head_dim * (p.method === "prefix" ? 1 + p.virtual_tokens / p.length : 1);
    if (droppedMaps(p)) return 3 * q * 4 + q * a + maps(p);
    if (p.attention === "eager") return 4 * q * a + maps(p);
    if (p.padded) return 4 * q * a + 4 * s.heads + a * positions(p);
    return 2 * (q + kv) * a + 4 * s.heads;
  }
  function adapters(p) {
    const chosen = adapted(p);
    if (!chosen.length) return 0;
    const inner = 4 * p.rank * chosen.length;
    if (compute(p) < 4 || p.adapter_dropout) {
      return inner + sum(chosen.map((l) => (4 + (p.adapter_dropout ? p.mask_bytes : 0)) * l.n_in));
    }
    const last = linears(p.shape).length - 1, places = new Map();
    for (const l of chosen) places.set(l.place < 3 ? 0 : l.place === 3 ? 1 : l.place < last ? 2 : 3, l.n_in);
    places.delete(1);
    return inner + 4 * sum([...places.values()]);
  }
  function layerActivations(p) {
    const s = p.shape, widths = (causal(s) ? 3 : 1) + (full(p) ? 1 : 0);
    const masks = p.dropout && !causal(s) ? (s.family === "bert" ? 2 : 1) * s.hidden * p.mask_bytes : 0;
    return tokens(p) * (normBytes(p) + attention(p) + widths * s.intermediate * compute(p) + adapters(p) + masks);
  }
  function stem(p) {
    const d = p.shape.hidden;
    if (causal(p.shape)) return tokens(p) * (4 * d + 4 + (full(p) ? (stream(p) + compute(p)) * d : 0));
    return full(p) ? tokens(p) * (stream(p) * d + 8 + (p.dropout ? p.mask_bytes * d : 0)) : 0;
  }

  // ---------------------------------------------------------------------- memory of a step by phase
  function baseBytes(p) {
    const s = p.shape, all = parameters(s), linear = linearParameters(s);
    if (full(p)) return all * kept(p).weight;
    return quantised(p) ? (linear * bits(p)) / 8 + (all - linear) * compute(p) : all * compute(p);
  }
  function factored(p) {
    const s = p.shape;
    if (p.method === "prompt") return p.virtual_tokens + s.hidden;
    if (p.method === "prefix") return p.virtual_tokens + 2 * s.layers * s.kv_heads * s.head_dim;
    if (!full(p)) return s.layers * sum(adapted(p).map((l) => l.n_in + l.n_out + 2 * p.rank));
    const tables = [s.vocab, s.positions, s.segments].filter(Boolean);
    if (headParameters(s)) tables.push(s.vocab);
    if (pooler(s)) tables.push(s.hidden);
    const vectors = norms(s) + biases(s) + (pooler(s) ? s.hidden : 0);
    return s.layers * sum(linears(s).map((l) => l.n_in + l.n_out)) + sum(tables.map((n) => n + s.hidden)) + vectors;
  }
  function optimizerBytes(p) {
    const moment = kept(p).moment;
    if (p.optimizer === "adafactor") return 4 * factored(p);
    return trained(p) * { adamw: 2 * moment, "adamw-8bit": 2 * (1 + 4 / 256), sgd: 0, "sgd-momentum": moment }[p.optimizer];
  }
  const layerParameters = (p) => linearParameters(p.shape) / p.shape.layers;
  function gathered(p) {
    const s = p.shape, outside = parameters(s) - linearParameters(s) - biases(s);
    return layerParameters(p) * (quantised(p) ? bits(p) / 8 : compute(p)) + outside * compute(p);
  }
  function casts(p) {
    if (p.precision !== "autocast") return 0;
    const layers = p.checkpointing ? layerParameters(p) : linearParameters(p.shape);
    return 2 * (layers + (causal(p.shape) ? p.shape.vocab * p.shape.hidden : 0));
  }
  function states(p) {
    const n = p.devices, stage = ["none", "zero1", "zero2", "zero3"].indexOf(p.sharding);
    const share = stage >= 1 ? n : 1, count = trained(p);
    return { overhead: p.overhead_bytes, weights: baseBytes(p) / (stage >= 3 ? n : 1),
      adapters: full(p) ? 0 : count * kept(p).weight, casts: casts(p),
      gathered: stage >= 3 && n > 1 ? gathered(p) : 0, masters: (count * kept(p).master) / share,
      optimizer: optimizerBytes(p) / share };
  }
  function gradients(p) {
    const count = trained(p), each = kept(p).gradient;
    if (p.devices === 1 || p.sharding === "none" || p.sharding === "zero1") return count * each;
    return (count * each) / p.devices + (full(p) ? layerParameters(p) : count / p.shape.layers) * each;
  }
  function largestTrained(p) {
    const s = p.shape, chosen = adapted(p);
    if (full(p)) return Math.max(s.vocab * s.hidden, ...linears(s).map((l) => l.n_in * l.n_out));
    return chosen.length ? p.rank * Math.max(...chosen.flatMap((l) => [l.n_in, l.n_out])) : trained(p);
  }
  function temporaries(p) {
    if (p.step === "fused" || p.optimizer !== "adamw") return 0;
    if (p.step === "foreach") return (trained(p) * kept(p).moment) / (p.sharding === "none" ? 1 : p.devices);
    return 2 * largestTrained(p) * kept(p).moment;
  }
  function workspace(p) {
    const s = p.shape, flying = tokens(p) * (2 * s.intermediate + 2 * s.hidden) * compute(p);
    return flying + (quantised(p) ? Math.max(...linears(s).map((l) => l.n_in * l.n_out)) * compute(p) : 0);
  }
  function inference(p) {
    const s = p.shape, a = compute(p), held = p.batch * (p.length + p.new_tokens);
    return { generation: { overhead: p.overhead_bytes, weights: baseBytes(p),
      cache: causal(s) ? 2 * s.layers * s.kv_heads * s.head_dim * held * a : 0,
      workspace: p.batch * p.length * (3 * s.intermediate + 2 * s.hidden) * a, logits: causal(s) ? 4 * p.batch * s.vocab : 0 } };
  }
  function training(p) {
    const s = p.shape, a = compute(p), fixed = states(p), layer = layerActivations(p);
    const rows = p.batch * p.length, words = causal(s) ? s.vocab * (Math.min(p.loss_tokens, rows) || rows) : 0;
    const boundary = tokens(p) * s.hidden * stream(p), one = p.checkpointing ? boundary : layer, everything = one * s.layers;
    const again = p.checkpointing ? layer - (stream(p) === 4 ? one : 0) : 0;
    const head = full(p) && causal(s) ? s.vocab * s.hidden * kept(p).gradient : 0;
    const work = workspace(p), all = gradients(p), top = everything + stem(p);
    const phases = {
      loss: { activations: top, logits: words * 12 },
      head: { activations: top, logits: words * (4 + (a < 4 ? a : 0)), gradients: head },
      "first layer": { activations: everything + again, workspace: work, gradients: head },
      "last layer": { activations: layer, workspace: work, gradients: all },
      step: { gradients: all, temporaries: temporaries(p) },
    };
    return Object.fromEntries(Object.entries(phases).map(([name, own]) => [name, { ...fixed, ...own }]));
  }
  function memory(p) {
    const phases = generates(p) ? inference(p) : training(p);
    const totals = Object.entries(phases).map(([name, parts]) => [name, sum(Object.values(parts))]);
    const [peak, total] = totals.reduce((best, one) => (one[1] > best[1] ? one : best));
    return { phases, peak, total };
  }

  // ---------------------------------------------------------------------- time and money
  function flopsPerToken(p) {
    const s = p.shape, head = causal(s) ? 2 * s.vocab * s.hidden : 0;
    const pairs = positions(p) * (causal(s) ? 0.5 : 1);
    const forward = 2 * linearParameters(s) + head + 4 * pairs * s.heads * s.head_dim * s.layers;
    if (generates(p)) return forward;
    const own = adapted(p).length ? (p.checkpointing ? 8 : 6) * trained(p) : 0;
    return (full(p) ? 3 : 2) * forward + (p.checkpointing ? forward - head : 0) + own;
  }
  function bill(p, count, deviceFlops, mfu, price) {
    const flops = flopsPerToken(p) * count, hours = flops / (deviceFlops * mfu * p.devices) / 3600;
    return { flops, hours, dollars: price === null ? null : hours * p.devices * price };
  }

  const sizing = { memory, bill, flopsPerToken, layerActivations, trained, parameters, shapeOf, linears };
  if (typeof module !== "undefined") module.exports = sizing;
  else window.sizing = sizing;
})();
