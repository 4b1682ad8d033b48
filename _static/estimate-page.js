// The calculator of the page Estimator: a form, its answer, and the same question for the terminal.
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const app = document.querySelector(".est-app"), source = document.querySelector("script.est-data");
  if (!app || !source || !window.sizing) return;
  const data = JSON.parse(source.textContent), GB = 1e9;
  const TARGETS = { llama: { qv: [0, 2], attention: [0, 1, 2, 3] }, bert: { qv: [0, 2], attention: [0, 1, 2, 3] },
    distilbert: { qv: [0, 2], attention: [0, 1, 2, 3] } };
  const OWN = "own config.json";

  // ---------------------------------------------------------------------- form
  const LORA = ["lora", "qlora"], TRAINS = ["full", "lora", "qlora", "prompt", "prefix"];
  const FIELDS = [  // no control may be called length: a form has a property of that name
    ["Model", "model", [...Object.keys(data.shapes), OWN], "Llama-3-8B"],
    ["Method", "method", data.methods, "qlora"],
    ["LoRA rank", "rank", 1, 16, LORA],
    ["Adapted linears", "targets", { qv: "queries and values", attention: "all of attention", "all-linear": "all linears" }, "qv", LORA],
    ["Virtual tokens", "virtual_tokens", 1, 20, ["prompt", "prefix"]],
    ["Precision", "precision", data.precisions, "bf16"],
    ["Optimizer", "optimizer", data.optimizers, "adamw", TRAINS],
    ["Sequences a step and device", "batch", 0, 4],
    ["Tokens a sequence", "sequence", 1, 2048],
    ["New tokens", "new_tokens", 0, 256, ["inference", "inference-4bit"]],
    ["Tokens with logits at once (0: all)", "loss_tokens", 0, 0, TRAINS],
    ["Activations", "checkpointing", { yes: "checkpointed", no: "all kept" }, "yes", TRAINS],
    ["Attention", "attention", { fused: "fused kernel", eager: "eager, maps kept" }, "fused", TRAINS],
    ["Sharding", "sharding", { none: "none", zero1: "ZeRO-1", zero2: "ZeRO-2", zero3: "ZeRO-3, FSDP" }, "none", TRAINS],
    ["Devices", "devices", 1, 1, TRAINS],
    ["Device", "device", Object.keys(data.devices), "A100-80"],
    ["Overhead in GB (context, allocator)", "overhead", 0, 0],
    ["Training tokens", "tokens", 0, 10000000, TRAINS],
    ["Share of peak FLOP/s (MFU)", "mfu", 0.01, 0.4, TRAINS],
    ["Dollars an hour and device (yours, today)", "price", 0, "", TRAINS],
  ];
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const control = ([, name, kind, start]) => {
    if (typeof kind === "number") {
      return make("input", { name, type: "number", min: kind, step: "any", value: start, inputmode: "decimal" });
    }
    const options = Array.isArray(kind) ? Object.fromEntries(kind.map((k) => [k, k])) : kind;
    const select = make("select", { name });
    for (const [value, text] of Object.entries(options)) select.append(make("option", { value }, text));
    select.value = start;
    return select;
  };
  const form = make("form", { class: "est-form", "aria-label": "A fine-tuning run" });
  const labels = new Map();
  const labelled = (text, input) => {
    input.id = `est-${input.name}`;
    return make("div", { class: "est-field" }, make("label", { for: input.id }, text), input);
  };
  for (const field of FIELDS) {
    labels.set(field[1], labelled(field[0], control(field)));
    form.append(labels.get(field[1]));
  }
  const config = make("textarea", { name: "config", rows: 4, spellcheck: "false",
    placeholder: '{"model_type": "llama", "hidden_size": 2048, ...}' });
  const own = labelled("The text of a config.json (llama, mistral, bert, distilbert)", config);
  own.classList.add("est-own");
  form.append(own);
  const answer = make("div", { class: "est-answer" });
  const says = make("p", { class: "est-says", role: "status", "aria-live": "polite" });
  answer.append(says);
  app.append(form, answer);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "method") form.elements.precision.value = event.target.value === "full" ? "mixed" : "bf16";
    update();
  });

  // ---------------------------------------------------------------------- from the form to a plan
  function number(name) {
    const input = form.elements[name], value = Number(input.value), text = labels.get(name).firstChild.textContent;
    const least = Number(input.min), whole = !["overhead", "mfu", "price", "tokens"].includes(name);
    const good = input.value.trim() !== "" && Number.isFinite(value) && value >= least && (!whole || Number.isInteger(value));
    input.setAttribute("aria-invalid", String(!good));
    if (!good) throw new Error(`${text}: ${input.value || "nothing"} is no ${whole ? "whole " : ""}number of at least ${least}`);
    return value;
  }
  function shape() {
    if (form.elements.model.value !== OWN) return data.shapes[form.elements.model.value];
    if (!config.value.trim()) throw new Error("Paste the text of a config.json below the form");
    return window.sizing.shapeOf(JSON.parse(config.value), "own");
  }
  function plan() {
    const get = (name) => form.elements[name].value, method = get("method"), chosen = shape();
    if (method !== "full" && !["fp32", "bf16"].includes(get("precision"))) {
      throw new Error(`Precision ${get("precision")} is for full fine-tuning: a frozen base is in fp32 or bf16`);
    }
    if (["prompt", "prefix"].includes(method) && chosen.family !== "llama") {
      throw new Error(`Method ${method} has no rule for an encoder: use full or lora`);
    }
    const names = window.sizing.linears(chosen).map((l) => l.name), places = TARGETS[chosen.family][get("targets")];
    const numbers = ["rank", "virtual_tokens", "batch", "loss_tokens", "devices", "new_tokens"];
    return { ...data.defaults, shape: chosen, method, targets: places ? places.map((i) => names[i]) : "all-linear",
      length: number("sequence"), ...Object.fromEntries(numbers.map((name) => [name, number(name)])),
      ...Object.fromEntries(["precision", "optimizer", "attention", "sharding"].map((name) => [name, get(name)])),
      checkpointing: get("checkpointing") === "yes", overhead_bytes: number("overhead") * GB };
  }

  // ---------------------------------------------------------------------- the answer
  const gb = (bytes) => (bytes / GB).toLocaleString("en", { maximumFractionDigits: bytes < 10 * GB ? 3 : 1 });
  const several = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  function table(found) {
    const phases = Object.keys(found.phases);
    const causes = [...new Set(phases.flatMap((phase) => Object.keys(found.phases[phase])))]
      .filter((cause) => phases.some((phase) => found.phases[phase][cause]));
    const mark = (phase) => (phase === found.peak ? { class: "est-peak" } : {});
    const head = make("tr", {}, make("th", { scope: "col" }, "GB"),
      ...phases.map((phase) => make("th", { scope: "col", ...mark(phase) }, phase)));
    const row = (name, value) => make("tr", {}, make("th", { scope: "row" }, name),
      ...phases.map((phase) => make("td", mark(phase), value(phase))));
    const rows = causes.map((cause) => row(cause, (phase) => (found.phases[phase][cause] ? gb(found.phases[phase][cause]) : "")));
    const total = row("total", (phase) => gb(Object.values(found.phases[phase]).reduce((a, b) => a + b, 0)));
    total.className = "est-total";
    const caption = make("caption", {}, "Memory of one device by phase of a step and cause");
    const box = make("div", { class: "est-scroll", tabindex: "0", role: "region", "aria-label": "Memory by phase and cause" });
    box.append(make("table", { class: "est-table" }, caption, make("thead", {}, head), make("tbody", {}, ...rows, total)));
    return box;
  }
  function bar(found, memory) {
    const parts = Object.entries(found.phases[found.peak]).filter(([, size]) => size), scale = Math.max(found.total, memory);
    const box = make("div", { class: "est-bar", "aria-hidden": "true" });
    for (const [name, size] of parts) {
      const part = make("span", { class: `est-part est-${name}`, title: `${name}: ${gb(size)} GB` });
      part.style.width = `${(100 * size) / scale}%`;
      box.append(part);
    }
    const edge = make("i", { class: "est-edge" });
    edge.style.left = `${(100 * memory) / scale}%`;
    box.append(edge);
    const key = make("p", { class: "est-key", "aria-hidden": "true" },
      ...parts.map(([name]) => make("span", {}, make("i", { class: `est-part est-${name}` }), name)));
    return [box, key];
  }
  function money(p, device) {
    const count = number("tokens"), mfu = number("mfu");
    if (mfu > 1) throw new Error(`Share of peak FLOP/s: ${mfu} is above 1`);
    if (!count) return "";
    const price = form.elements.price.value.trim() === "" ? null : number("price");
    const spent = window.sizing.bill(p, count, device.flops, mfu, price);
    const hours = spent.hours.toLocaleString("en", { maximumSignificantDigits: 3 });
    const cost = spent.dollars === null ? "No price given, so no cost."
      : `At your price ${spent.dollars.toLocaleString("en", { style: "currency", currency: "USD" })}.`;
    return `${several(count, "token")} are ${spent.flops.toPrecision(3)} FLOP: ${hours} hours on ${several(p.devices, "device")}. ${cost}`;
  }
  function command(p) {
    const name = form.elements.model.value, words = ["mangalab estimate", name === OWN ? "config.json" : name.toLowerCase()];
    const targets = Array.isArray(p.targets) ? p.targets.join(",") : p.targets;
    const add = (option, value, standard) => { if (String(value) !== String(standard)) words.push(`--${option} ${value}`); };
    add("method", p.method, "lora");
    if (LORA.includes(p.method)) { add("rank", p.rank, 16); if (form.elements.targets.value !== "qv") add("targets", targets, ""); }
    if (["prompt", "prefix"].includes(p.method)) add("virtual-tokens", p.virtual_tokens, 20);
    add("precision", p.precision, p.method === "full" ? "mixed" : "bf16");
    add("batch", p.batch, 1);
    add("sequence", p.length, 512);
    add("device", form.elements.device.value, "A100-80");
    add("overhead-gb", p.overhead_bytes / GB, 0);
    if (p.method.startsWith("inference")) add("new-tokens", p.new_tokens, 0);
    else {
      add("optimizer", p.optimizer, "adamw");
      add("loss-tokens", p.loss_tokens, 0);
      if (!p.checkpointing) words.push("--no-checkpointing");
      add("attention", p.attention, "fused");
      add("sharding", p.sharding, "none");
      add("devices", p.devices, 1);
      add("tokens", form.elements.tokens.value, 0);
      add("mfu", form.elements.mfu.value, 0.4);
      if (form.elements.price.value.trim()) add("price", form.elements.price.value, "");
    }
    return words.join(" ");
  }
  function show(p) {
    const found = window.sizing.memory(p), device = data.devices[form.elements.device.value];
    const count = window.sizing.trained(p), all = window.sizing.parameters(p.shape);
    const fits = found.total < device.memory ? "fits" : "does not fit";
    const time = p.method.startsWith("inference") ? "" : money(p, device);
    says.replaceChildren(make("strong", {}, `${gb(found.total)} GB`), ` at the peak (${found.peak}): ${fits} on ${form.elements.device.value} with ${gb(device.memory)} GB. `,
      `${all.toLocaleString("en")} parameters, ${count.toLocaleString("en")} trained. ${time}`);
    answer.replaceChildren(says, ...bar(found, device.memory), table(found),
      make("p", { class: "est-command" }, "In a terminal: ", make("code", {}, command(p))));
  }
  function update() {
    const method = form.elements.method.value;
    for (const [, name, , , methods] of FIELDS) labels.get(name).hidden = Boolean(methods) && !methods.includes(method);
    own.hidden = form.elements.model.value !== OWN;
    try {
      show(plan());
      answer.classList.remove("est-wrong");
    } catch (error) {
      answer.classList.add("est-wrong");
      answer.replaceChildren(says);
      says.textContent = error instanceof SyntaxError ? `The config.json is no JSON: ${error.message}` : `${error.message}.`;
    }
  }
  app.hidden = false;
  update();
});
