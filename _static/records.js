// Tables of records: filters and sorting with their state in the address. All reads without it.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.ledger-filter");
  if (!form) return;
  const rows = [...document.querySelectorAll(form.dataset.rows)];
  const place = new Map(rows.map((row, index) => [row, index]));
  const parents = new Map(rows.map((row) => [row, row.parentElement]));
  const fits = (row, name, value) =>
    !value || name === "sort" || (name === "text"
      ? row.textContent.toLowerCase().includes(value.toLowerCase())
      : (row.dataset[name] || "").split("|").includes(value));
  const order = (name) => (a, b) =>
    (name ? Number(b.dataset[name]) - Number(a.dataset[name]) : 0) || place.get(a) - place.get(b);
  const show = () => {
    const wanted = [...new FormData(form)];
    for (const row of rows) row.hidden = !wanted.every(([name, value]) => fits(row, name, value));
    if (form.sort) {
      for (const row of [...rows].sort(order(form.sort.value))) parents.get(row).append(row);
    }
    for (const group of document.querySelectorAll("[data-group]")) {
      group.hidden = !rows.some((row) => !row.hidden && group.contains(row));
    }
    const left = rows.filter((row) => !row.hidden).length;
    form.querySelector("output").value = `${left} of ${rows.length} ${form.dataset.what}`;
  };
  const write = () => {
    const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    history.replaceState(null, "", String(state) ? `#${state}` : location.pathname + location.search);
    show();
  };
  // "#verdict=wrong&chapter=04-x" is a filter; "#claim-003-01" is a row, which no filter may hide
  const read = () => {
    const hash = location.hash.slice(1);
    if (hash.includes("=")) {
      const state = new URLSearchParams(hash);
      for (const field of form.elements) if (field.name) field.value = state.get(field.name) || "";
      show();
      return;
    }
    const target = hash && document.getElementById(hash);
    if (target && target.hidden) { form.reset(); show(); }
    for (const details of target ? target.querySelectorAll("details") : []) details.open = true;
    if (target) target.scrollIntoView();
  };
  form.addEventListener("input", write);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(write));
  addEventListener("hashchange", read);
  show();
  read();
});
