// Mock interview: a set of questions that the page's address names, each against its clock.
interview.starts.mock = (app, deck) => {
  "use strict";
  const { make, clock, LEVELS } = interview;
  let asked = [], at = 0, since = 0, ticking = 0;

  const setup = make(`<form class="iq-setup" aria-label="The interview"><label>Questions
      <input name="n" type="number" min="1" max="${deck.length}" value="5" required inputmode="numeric"></label>
    <label>Name of the set <input name="set" required pattern="[A-Za-z0-9_\\-]{1,30}" size="10" autocomplete="off"
      title="letters, digits, - and _"></label>
    <button class="iq-main">Start</button></form>`);
  setup.firstElementChild.after(interview.filters(deck));
  const head = make(`<div class="iq-head" hidden><b class="iq-where"></b>
    <span role="timer" class="iq-timer"></span><span class="iq-total"></span>
    <progress class="iq-time" max="1" value="0" aria-label="Time of this question used"></progress></div>`);
  const result = make(`<div class="iq-result" tabindex="-1" hidden></div>`);
  const status = make(`<p class="iq-status" role="status" aria-live="polite"></p>`);
  app.append(setup, head, result, status);
  const bar = make(`<div class="iq-bar" role="group" aria-label="This question" hidden>
    <div class="iq-row iq-ask"><button type="button" data-do="show" class="iq-main">Show answer <kbd>Space</kbd></button></div>
    <div class="iq-row iq-judge" hidden><label><input type="checkbox" name="insight"> I named the key insight <kbd>1</kbd></label>
      <label><input type="checkbox" name="clear"> I made no such mistake <kbd>2</kbd></label></div>
    <div class="iq-row iq-moves"><button type="button" data-do="end">End now</button>
      <button type="button" data-do="next" class="iq-main" hidden>Next <kbd>→</kbd></button></div></div>`);
  [...document.querySelectorAll("section.iq-group")].at(-1).after(bar);
  const part = (name) => app.querySelector(name) || bar.querySelector(name);

  // ---------------------------------------------------------------------- the address names the set
  const address = () => new URLSearchParams(location.hash.slice(1));
  const fill = () => {
    const given = address(), random = crypto.getRandomValues(new Uint32Array(1))[0].toString(36).slice(0, 5);
    setup.elements.set.value = given.get("set") || random;
    for (const name of ["n", "bank", "level"]) if (given.has(name)) setup.elements[name].value = given.get(name);
    for (const name of ["bank", "level"]) if (!setup.elements[name].value) setup.elements[name].value = "";
    status.textContent = given.has("set") ? `This address names the set ${setup.elements.set.value}.` : "";
  };
  const choice = () => {
    const { n, set, bank, level } = setup.elements;
    return { n: Number(n.value), set: set.value, bank: bank.value, level: level.value };
  };

  // ---------------------------------------------------------------------- asking
  const sum = (list, field) => list.reduce((total, entry) => total + entry[field], 0);
  const seconds = () => asked[at].used + (since ? (Date.now() - since) / 1000 : 0);
  const tick = () => {
    const used = seconds(), given = asked[at].minutes * 60, over = used > given;
    const total = sum(asked, "used") - asked[at].used + used;
    part(".iq-timer").textContent = over ? `${clock(used - given)} over ${clock(given)}` : `${clock(used)} of ${clock(given)}`;
    part(".iq-total").textContent = `${clock(total)} of ${clock(sum(asked, "minutes") * 60)} in all`;
    part(".iq-time").value = Math.min(1, used / given);
    head.classList.toggle("iq-over", over);
    if (over && !asked[at].told) {
      asked[at].told = true;
      status.textContent = "The time of this question is up.";
    }
  };
  const stop = () => {
    if (since) asked[at].used = seconds();
    since = 0;
    clearInterval(ticking);
  };
  const ask = () => {
    for (const { node } of deck) { node.open = false; node.classList.remove("iq-on"); }
    const { node } = asked[at];
    node.classList.add("iq-on");
    app.classList.add("iq-asking");
    part(".iq-where").textContent = `Question ${at + 1} of ${asked.length}`;
    status.textContent = "";
    for (const box of bar.querySelectorAll("input")) box.checked = false;
    since = Date.now();
    clearInterval(ticking);
    ticking = setInterval(tick, 250);
    tick();
    dress();
    interview.reveal(node, node.querySelector("summary"));
  };
  const dress = () => {
    const { shown } = asked[at];
    part(".iq-ask").hidden = shown;
    part(".iq-judge").hidden = !shown;
    const next = bar.querySelector("[data-do=next]");
    next.hidden = !shown;
    next.firstChild.textContent = at + 1 < asked.length ? "Next " : "Finish ";
  };
  const judge = () => {
    for (const box of bar.querySelectorAll("input")) asked[at][box.name] = Number(box.checked);
  };
  const acts = {
    show: () => { asked[at].node.open = true; },
    next: () => {
      judge();
      at += 1;
      if (at < asked.length) ask(); else finish();
    },
    end: () => {
      stop();
      judge();
      asked = asked.slice(0, asked[at].shown ? at + 1 : at);
      finish();
    },
  };
  const start = () => {
    const wanted = choice();
    asked = interview.pick(deck, wanted, LEVELS)
      .map((q) => ({ ...q, used: 0, shown: false, insight: 0, clear: 0, told: false }));
    if (!asked.length) { status.textContent = "No question matches: choose another bank or level."; return; }
    location.hash = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value !== ""));
    at = 0;
    setup.hidden = result.hidden = true;
    head.hidden = bar.hidden = false;
    ask();
  };

  // ---------------------------------------------------------------------- the result
  const row = (name, list) => `<tr><th scope="row">${name}</th><td>${list.length}</td>
    <td>${sum(list, "insight")}</td><td>${sum(list, "clear")}</td>
    <td>${clock(sum(list, "used"))} of&nbsp;${clock(sum(list, "minutes") * 60)}</td></tr>`;
  const finish = () => {
    stop();
    head.hidden = bar.hidden = true;
    app.classList.remove("iq-asking");
    for (const { node } of deck) { node.open = false; node.classList.remove("iq-on"); }
    const levels = LEVELS.map((level) => [level, asked.filter((q) => q.level === level)]).filter(([, list]) => list.length);
    result.innerHTML = `<h2>How it went</h2><div class="iq-scroll"><table class="table"><thead><tr><th scope="col">Level</th>
      <th scope="col">Asked</th><th scope="col">Insight</th><th scope="col">No mistake</th><th scope="col">Time</th></tr></thead>
      <tbody>${levels.map(([level, list]) => row(level, list)).join("")}${row("All", asked)}</tbody></table></div>
      <div class="iq-row"><button type="button" data-do="again">Same questions again</button>
      <button type="button" data-do="new" class="iq-main">Another set</button></div>
      <p>${asked.length ? "The questions once more, with what you missed:" : "No question was answered."}</p>`;
    for (const { node, insight, clear } of asked) {
      node.classList.add("iq-on");
      const missed = [insight ? "" : "key insight missed", clear ? "" : "mistake made"].filter(Boolean).join(", ");
      node.querySelector(".iq-verdict")?.remove();
      node.querySelector(".iq-meta").append(make(`<span class="iq-verdict"> · ${missed || "both points"}</span>`));
    }
    result.hidden = false;
    status.textContent = "";
    asked = [];
    interview.reveal(result, result);
  };
  const again = (fresh) => {
    if (fresh) history.replaceState(null, "", location.pathname + location.search);
    for (const node of document.querySelectorAll(".iq-verdict")) node.remove();
    for (const { node } of deck) node.classList.remove("iq-on");
    result.hidden = true;
    setup.hidden = false;
    fill();
    interview.reveal(setup, setup.querySelector("button"));
  };

  // ---------------------------------------------------------------------- events
  setup.addEventListener("submit", (event) => { event.preventDefault(); start(); });
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) acts[button.dataset.do]();
  });
  result.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) again(button.dataset.do === "new");
  });
  for (const { node } of deck) node.addEventListener("toggle", () => {
    if (!asked[at] || node !== asked[at].node || !node.open || asked[at].shown) return;
    asked[at].shown = true;
    stop();
    tick();
    dress();
    const body = node.querySelector(".iq-body");
    body.tabIndex = -1;
    body.focus({ preventScroll: true });
  });
  interview.onKeys((key) => {
    const question = asked[at];
    if (!question) return false;
    if (key === " " && !question.shown) acts.show();
    else if (/^[12]$/.test(key) && question.shown) bar.querySelectorAll("input")[key - 1].click();
    else if (key === "ArrowRight" && question.shown) acts.next();
    else return false;
    return true;
  });
  window.addEventListener("hashchange", () => asked.length || fill());
  fill();
};
