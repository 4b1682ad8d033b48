// The interview pages: rules of the flash cards and of the mock interview, and what both pages share.
// The rules know nothing of the page; tests call them through `interview`.
const interview = (() => {
  "use strict";
  const DAYS = [1, 3, 7, 14, 30, 60]; // days until a card of box 1 to 6 is due again
  const FORMAT = "mangalab-cards";

  // Days are local dates as text (2026-11-22): they sort as text and change at the reader's midnight.
  const day = (date) => [date.getFullYear(), date.getMonth() + 1, date.getDate()]
    .map((part) => String(part).padStart(2, "0")).join("-");
  const later = (from, days) => {
    const [year, month, date] = from.split("-").map(Number);
    return day(new Date(year, month - 1, date + days));
  };

  // Leitner's boxes. Marks: 1 again, 2 hard, 3 good, 4 easy; a new card (undefined) lies in box 0.
  const grade = (card, mark, today) => {
    const box = card ? card.box : 0;
    const next = mark === 1 ? 1 : Math.min(DAYS.length, Math.max(1, box + mark - 2));
    const wait = mark === 1 ? 0 : mark === 2 ? 1 : DAYS[next - 1];
    return { box: next, due: later(today, wait), last: today, seen: (card ? card.seen : 0) + 1 };
  };

  // Cards to learn: those that are due, the longest overdue first, then new ones in the deck's order.
  const queue = (ids, cards, today) => {
    const due = ids.filter((id) => cards[id] && cards[id].due <= today);
    due.sort((a, b) => (cards[a].due < cards[b].due ? -1 : cards[a].due > cards[b].due ? 1 : 0));
    return [...due, ...ids.filter((id) => !cards[id])];
  };

  const isDate = (text) => typeof text === "string" && /^\d{4}-\d\d-\d\d$/.test(text);
  const isCount = (n, low, high) => Number.isInteger(n) && n >= low && n <= high;
  const isCard = (c) => Boolean(c) && isCount(c.box, 1, DAYS.length) && isCount(c.seen, 1, 1e6) &&
    isDate(c.due) && isDate(c.last);

  // The cards in the text of a progress file; throws an Error that says what is wrong with it.
  const readProgress = (text) => {
    let file;
    try { file = JSON.parse(text); } catch { throw new Error("the file is not JSON"); }
    if (!file || file.format !== FORMAT || file.version !== 1 || typeof file.cards !== "object" || !file.cards)
      throw new Error("the file is not the progress of these flash cards");
    const bad = Object.keys(file.cards).find((id) => !isCard(file.cards[id]));
    if (bad !== undefined) throw new Error(`the entry of card ${bad} is damaged`);
    return file.cards;
  };
  const writeProgress = (cards) => JSON.stringify({ format: FORMAT, version: 1, cards }, null, 1);

  // Both readers' cards; of a card that both have, the one that was seen last.
  const merge = (ours, theirs) => {
    const both = { ...ours };
    for (const [id, card] of Object.entries(theirs)) {
      const own = both[id];
      if (!own || own.last < card.last || (own.last === card.last && own.seen < card.seen)) both[id] = card;
    }
    return both;
  };

  // FNV-1a with the last mixing steps of MurmurHash3: 32 bits.
  const hash = (text) => {
    let h = 2166136261;
    for (const letter of text) h = Math.imul(h ^ letter.codePointAt(0), 16777619);
    h = Math.imul(h ^ (h >>> 16), 2246822507);
    h = Math.imul(h ^ (h >>> 13), 3266489909);
    return (h ^ (h >>> 16)) >>> 0;
  };

  // The n questions with the smallest hash of set name and id: a question that is added to the book
  // later replaces at most one of them. Asked by level, the easiest first.
  const pick = (questions, { set, n, bank, level }, levels) =>
    questions.filter((q) => (!bank || q.bank === bank) && (!level || q.level === level))
      .map((q) => ({ q, key: hash(`${set}:${q.id}`) }))
      .sort((a, b) => a.key - b.key || (a.q.id < b.q.id ? -1 : 1))
      .slice(0, n).map((entry) => entry.q)
      .sort((a, b) => levels.indexOf(a.level) - levels.indexOf(b.level));

  const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

  // ---------------------------------------------------------------------- the page
  const LEVELS = ["Fresh", "Intermediate", "Advanced", "Expert"];
  const make = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html.trim();
    return template.content.firstElementChild;
  };

  // The questions of this page in its order; `title` is that of the bank.
  const deck = () => [...document.querySelectorAll("section.iq-group > details.iq")].map((node) => ({
    node, id: node.id, bank: node.dataset.bank, level: node.dataset.level, minutes: Number(node.dataset.minutes),
    title: node.parentElement.querySelector("h2").firstChild.textContent.trim(),
    question: node.querySelector(".iq-q").textContent,
  }));

  // Choice of bank and level. Texts are set as text: a title is never read as HTML.
  const filters = (questions) => {
    const part = make(`<span class="iq-filter"><label>Bank <select name="bank"></select></label>
      <label>Level <select name="level"></select></label></span>`);
    const [bank, level] = part.querySelectorAll("select");
    bank.append(new Option("All banks", ""));
    for (const [value, title] of new Map(questions.map((q) => [q.bank, q.title]))) bank.append(new Option(title, value));
    level.append(new Option("All levels", ""), ...LEVELS.map((name) => new Option(name, name)));
    return part;
  };

  // Calls act(key) for keys that mean something here; typing, buttons and links keep their own.
  const onKeys = (act) => document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea, .iq-tools")) return;
    const presses = event.key === " " || event.key === "Enter";
    if (presses && event.target.closest("button, a, label, input, details:not(.iq) > summary")) return;
    if (act(event.key)) { event.preventDefault(); event.stopPropagation(); }
  }, true);

  // Moves to a question: its title gets the focus, and comes into view if it is not.
  const reveal = (node, focus) => {
    focus.focus({ preventScroll: true });
    const { top, bottom } = node.getBoundingClientRect();
    if (top < 70 || Math.min(bottom, top + 120) > window.innerHeight) node.scrollIntoView();
  };

  const starts = {};
  if (typeof document !== "undefined") {
    document.documentElement.classList.add("iq-js"); // before the list is painted
    const open = () => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target && target.matches("details.iq")) target.open = true;
    };
    document.addEventListener("DOMContentLoaded", () => {
      const app = document.querySelector(".iq-app");
      if (app) starts[app.dataset.mode](app, deck());
      else open();
      window.addEventListener("hashchange", () => app || open());
    });
    let closed = [];
    window.addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details.iq:not([open])")];
      for (const node of closed) node.open = true;
    });
    window.addEventListener("afterprint", () => { for (const node of closed) node.open = false; });
  }

  return {
    DAYS, LEVELS, day, later, grade, queue, readProgress, writeProgress, merge, hash, pick, clock,
    make, filters, onKeys, reveal, starts,
  };
})();
