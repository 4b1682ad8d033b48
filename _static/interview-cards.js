// Flash cards: deals out the questions of the page, keeps a reader's boxes in local storage only.
interview.starts.cards = (app, deck) => {
  "use strict";
  const { make, day, grade, queue } = interview;
  const KEY = "mangalab.cards";
  const WORDS = ["", "Again", "Hard", "Good", "Easy"];
  const byId = new Map(deck.map((card) => [card.id, card]));
  let cards = {}, line = [], at = 0, undo = [], kept = true;

  // ---------------------------------------------------------------------- progress
  const save = () => {
    try { localStorage.setItem(KEY, interview.writeProgress(cards)); kept = true; } catch { kept = false; }
    warning.hidden = kept;
  };
  const load = () => {
    try {
      const text = localStorage.getItem(KEY);
      if (text) cards = interview.readProgress(text);
      localStorage.setItem(`${KEY}.test`, "1");
      localStorage.removeItem(`${KEY}.test`);
    } catch (error) {
      kept = false;
      if (error.message.startsWith("the ")) say(`The stored progress was not used: ${error.message}.`);
    }
    warning.hidden = kept;
  };

  // ---------------------------------------------------------------------- controls
  const warning = make(`<p class="iq-warning" role="alert" hidden>This browser does not let the page store anything:
    your progress lasts until you leave. Save it as a file below.</p>`);
  const form = make(`<form class="iq-setup" aria-label="Which cards"></form>`);
  form.append(interview.filters(deck));
  const counts = make(`<p class="iq-counts"></p>`);
  const boxes = make(`<ol class="iq-boxes" aria-label="Cards in each box"></ol>`);
  const status = make(`<p class="iq-status" role="status" aria-live="polite"></p>`);
  app.append(warning, form, counts, boxes, status);
  const bar = make(`<div class="iq-bar" role="group" aria-label="This card">
    <div class="iq-row iq-ask"><button type="button" data-do="show" class="iq-main">Show answer <kbd>Space</kbd></button></div>
    <div class="iq-row iq-grades" hidden>${[1, 2, 3, 4].map((mark) =>
      `<button type="button" data-mark="${mark}"><span>${WORDS[mark]} <kbd>${mark}</kbd></span><small></small></button>`).join("")}</div>
    <div class="iq-row iq-moves"><button type="button" data-do="back">← Back</button>
      <button type="button" data-do="undo">Undo grade</button><button type="button" data-do="skip">Skip →</button></div></div>`);
  const tools = make(`<details class="iq-tools"><summary>Progress as a file, reset</summary><div class="iq-row">
    <button type="button" data-do="export">Save to a file</button><button type="button" data-do="import">Load from a file</button>
    <button type="button" data-do="reset">Forget everything</button><input type="file" accept=".json,application/json" hidden></div></details>`);
  [...document.querySelectorAll("section.iq-group")].at(-1).after(bar, tools);
  const picker = tools.querySelector("input");
  const say = (text) => { status.textContent = text; };

  // ---------------------------------------------------------------------- what is shown
  const current = () => byId.get(line[at]);
  const chosen = () => deck.filter((card) => ["bank", "level"].every(
    (name) => !form.elements[name].value || form.elements[name].value === card[name]));
  const when = (card) => {
    const days = [0, 1].find((n) => interview.later(day(new Date()), n) === card.due);
    return days === 0 ? "today" : days === 1 ? "tomorrow" : `on ${card.due}`;
  };
  const count = () => {
    const today = day(new Date()), ids = chosen().map((card) => card.id);
    const due = ids.filter((id) => cards[id] && cards[id].due <= today).length;
    const fresh = ids.filter((id) => !cards[id]).length;
    counts.innerHTML = `<span><b class="iq-due">${due}</b> due</span> <span><b class="iq-new">${fresh}</b> new</span>
      <span><b class="iq-later">${ids.length - due - fresh}</b> waiting</span>`;
    const filled = ["New", ...interview.DAYS.map((_, i) => `Box ${i + 1}`)].map((name, box) =>
      [name, ids.filter((id) => (cards[id] ? cards[id].box : 0) === box).length]);
    boxes.innerHTML = filled.map(([name, n]) =>
      `<li style="--share:${ids.length ? n / ids.length : 0}"><b>${n}</b><span>${name}</span></li>`).join("");
  };
  const dress = () => {
    const card = current(), open = Boolean(card && card.node.open), today = day(new Date());
    bar.hidden = !card;
    bar.querySelector(".iq-ask").hidden = open;
    bar.querySelector(".iq-grades").hidden = !open;
    for (const button of bar.querySelectorAll("[data-mark]")) {
      const next = card && grade(cards[card.id], Number(button.dataset.mark), today);
      const days = next ? Math.round((Date.parse(next.due) - Date.parse(today)) / 864e5) : 0;
      button.querySelector("small").textContent = days === 0 ? "today" : days === 1 ? "1 day" : `${days} days`;
    }
    bar.querySelector("[data-do=back]").disabled = at === 0;
    bar.querySelector("[data-do=skip]").disabled = at + 1 >= line.length;
    bar.querySelector("[data-do=undo]").disabled = !undo.length;
  };
  const show = (focus) => {
    for (const { node } of deck) { node.open = false; node.classList.remove("iq-on"); }
    const card = current();
    if (card) {
      card.node.classList.add("iq-on");
      if (focus) interview.reveal(card.node, card.node.querySelector("summary"));
    } else finish(focus);
    count();
    dress();
  };
  const finish = (focus) => {
    const next = chosen().map((card) => cards[card.id]).filter(Boolean).map((card) => card.due).sort()[0];
    say(next ? `Done: nothing is due. The next card is due ${when({ due: next })}.` : "No card matches.");
    status.tabIndex = -1;
    if (focus) interview.reveal(status, status);
  };
  const deal = (focus) => {
    line = queue(chosen().map((card) => card.id), cards, day(new Date()));
    at = 0;
    show(focus);
  };

  // ---------------------------------------------------------------------- what a reader does
  const mark = (value) => {
    const card = current(), before = cards[card.id];
    undo.push({ id: card.id, before, line, at });
    cards[card.id] = grade(before, value, day(new Date()));
    line = line.filter((id) => id !== card.id);
    if (value === 1) line.splice(Math.min(line.length, at + 4), 0, card.id); // once more, a little later
    if (at >= line.length) at = 0; // back to what was skipped
    save();
    say(`${WORDS[value]}: box ${cards[card.id].box}, due ${when(cards[card.id])}.`);
    show(true);
  };
  const acts = {
    show: () => { current().node.open = true; },
    back: () => { at -= 1; show(true); },
    skip: () => { at += 1; show(true); },
    undo: () => {
      const last = undo.pop();
      if (last.before) cards[last.id] = last.before; else delete cards[last.id];
      ({ line, at } = last);
      save();
      say("The last grade was taken back.");
      show(true);
    },
    export: () => {
      const url = URL.createObjectURL(new Blob([interview.writeProgress(cards)], { type: "application/json" }));
      Object.assign(document.createElement("a"), { href: url, download: `cards-${day(new Date())}.json` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
      say(`Progress of ${Object.keys(cards).length} cards saved to a file.`);
    },
    import: () => picker.click(),
    reset: () => {
      const n = Object.keys(cards).length;
      if (!window.confirm(`Forget the progress of ${n} cards? A saved file can bring it back.`)) return;
      cards = {};
      undo = [];
      save();
      deal(false);
      say(`Forgotten: ${n} cards are new again.`);
    },
  };
  const act = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.mark) mark(Number(button.dataset.mark)); else acts[button.dataset.do]();
  };
  bar.addEventListener("click", act);
  tools.addEventListener("click", act);
  picker.addEventListener("change", async () => {
    const [file] = picker.files;
    if (!file) return;
    try {
      const theirs = interview.readProgress(await file.text());
      cards = interview.merge(cards, theirs);
      undo = [];
      save();
      deal(false);
      say(`Progress of ${Object.keys(theirs).length} cards loaded.`);
    } catch (error) { say(`Not loaded: ${error.message}.`); }
    picker.value = "";
  });
  form.addEventListener("change", () => { undo = []; say(""); deal(false); });
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const { node } of deck) node.addEventListener("toggle", () => {
    if (!current() || node !== current().node) return;
    dress();
    const body = node.querySelector(".iq-body");
    body.tabIndex = -1; // Space goes on to scroll a long answer, and a screen reader starts to read it
    if (node.open) body.focus({ preventScroll: true });
  });
  interview.onKeys((key) => {
    const card = current();
    if (!card) return false;
    if (key === " " && !card.node.open) acts.show();
    else if (/^[1-4]$/.test(key) && card.node.open) mark(Number(key));
    else if (key === "ArrowLeft" && at > 0) acts.back();
    else if (key === "ArrowRight" && at + 1 < line.length) acts.skip();
    else return false;
    return true;
  });
  load();
  deal(false);
};
