// Reading: definitions that open at terms, and the chosen reading order. All reads without it.
(() => {
  const KEY = "mangalab-order";
  const store = {
    get: () => { try { return localStorage.getItem(KEY); } catch { return null; } },
    set: (id) => { try { id ? localStorage.setItem(KEY, id) : localStorage.removeItem(KEY); } catch { /* private mode */ } },
  };

  // ---- definitions: hover, focus and tap open one box; Escape, a click elsewhere or leaving closes it
  function glossary() {
    const notes = document.querySelector(".gloss-notes");
    if (!notes) return;
    const box = document.createElement("div");
    box.id = "gloss-box";
    box.role = "tooltip";
    box.hidden = true;
    document.body.append(box);
    let open = null, timer = 0, touch = false;
    const close = () => { clearTimeout(timer); box.hidden = true; open = null; };
    const leave = () => { clearTimeout(timer); timer = setTimeout(close, 250); };
    const show = (term) => {
      clearTimeout(timer);
      if (open === term) return;
      const note = document.getElementById(term.getAttribute("aria-describedby"));
      const more = document.createElement("a");
      more.href = term.href;
      more.textContent = "In the glossary";
      more.tabIndex = -1;
      box.replaceChildren(note.cloneNode(true), more);
      box.firstChild.removeAttribute("id");
      box.hidden = false;
      const at = term.getClientRects()[0], width = document.documentElement.clientWidth;
      const left = Math.min(Math.max(16, at.left), Math.max(16, width - box.offsetWidth - 16));
      const below = at.bottom + 8 + box.offsetHeight < innerHeight;
      box.style.left = `${left + scrollX}px`;
      box.style.top = `${scrollY + (below ? at.bottom + 6 : at.top - box.offsetHeight - 6)}px`;
      open = term;
    };
    for (const term of document.querySelectorAll("a.gloss")) {
      term.addEventListener("pointerdown", (event) => { touch = event.pointerType === "touch"; });
      term.addEventListener("mouseenter", () => { if (!touch) { clearTimeout(timer); timer = setTimeout(() => show(term), 120); } });
      term.addEventListener("mouseleave", leave);
      term.addEventListener("focus", () => { if (!touch) show(term); });
      term.addEventListener("blur", leave);
      term.addEventListener("click", (event) => {  // the first tap opens, the link in the box goes on
        if (!touch) return;
        event.preventDefault();
        open === term ? close() : show(term);
      });
    }
    box.addEventListener("mouseenter", () => clearTimeout(timer));
    box.addEventListener("mouseleave", leave);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
    document.addEventListener("pointerdown", (event) => {
      if (open && !box.contains(event.target) && !event.target.closest("a.gloss")) close();
    });
  }

  // ---- reading orders: the chosen one replaces the links at the foot of the page
  function orders() {
    const data = document.getElementById("reading-ways");
    const ways = data ? JSON.parse(data.textContent) : {};
    const asked = new URLSearchParams(location.search).get("order");
    if (asked !== null) store.set(asked in ways ? asked : null);
    let chosen = asked !== null ? asked : store.get();
    if (!(chosen in ways)) chosen = null;
    if (chosen) follow(chosen, ways[chosen]);
    for (const button of document.querySelectorAll("button[data-order]")) {
      button.setAttribute("aria-pressed", String(button.dataset.order === chosen));
      if (button.dataset.order === chosen) button.textContent = "Following this order";
      button.addEventListener("click", () => choose(button.dataset.order === chosen ? null : button.dataset.order));
    }
  }

  function choose(id) {
    store.set(id);
    const url = new URL(location.href);
    url.searchParams.delete("order");
    if (id && location.protocol === "file:") url.searchParams.set("order", id);
    location.href === url.href ? location.reload() : location.replace(url.href);
  }

  function follow(id, way) {
    const area = document.querySelector(".prev-next-area");
    if (!area) return;
    // pages opened from disk may not share their storage: there the choice travels with the link
    const tail = location.protocol === "file:" ? `?order=${id}` : "";
    const link = (side, word, stop, icon) => {
      if (!stop) return "";
      const a = document.createElement("a"), info = document.createElement("div"), i = document.createElement("i");
      a.className = side;
      a.href = stop.href + tail;
      i.className = `fa-solid fa-angle-${icon}`;
      info.className = "prev-next-info";
      for (const [name, text] of [["subtitle", word], ["title", stop.title]]) {
        const p = document.createElement("p");
        p.className = `prev-next-${name}`;
        p.textContent = text;
        info.append(p);
      }
      a.append(...(icon === "left" ? [i, info] : [info, i]));
      return a;
    };
    const links = way.step
      ? [link("left-prev", "previous", way.prev, "left"), link("right-next", "next", way.next, "right")]
      : [link("right-next", `begin: ${way.title}`, way.start, "right")];
    area.replaceChildren(...links.filter(Boolean));
    const line = document.createElement("p"), end = document.createElement("button");
    line.className = "way";
    line.append(way.step ? `Reading order: ${way.title}, step ${way.step} of ${way.of}` : `Reading order: ${way.title}; this page is not part of it`);
    if (way.all) {
      const all = document.createElement("a");
      all.href = way.all + tail;
      all.textContent = "all steps";
      line.append(all);
    }
    end.type = "button";
    end.textContent = "leave this order";
    end.addEventListener("click", () => choose(null));
    line.append(end);
    area.before(line);
  }

  // ---- printing: light colours, and what is folded on the screen is open on paper
  const root = document.documentElement;
  addEventListener("beforeprint", () => {
    root.dataset.printed = root.dataset.theme;
    root.dataset.theme = "light";
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      details.dataset.closed = "";
    }
  });
  addEventListener("afterprint", () => {
    if (root.dataset.printed) root.dataset.theme = root.dataset.printed;
    delete root.dataset.printed;
    for (const details of document.querySelectorAll("details[data-closed]")) {
      details.open = false;
      delete details.dataset.closed;
    }
  });

  document.addEventListener("DOMContentLoaded", () => { glossary(); orders(); });
})();
