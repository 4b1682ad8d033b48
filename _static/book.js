// Ages of runs, provenance by keyboard and touch, the ledger's filter. All reads without it.
document.addEventListener("DOMContentLoaded", () => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const days = Math.floor((Date.now() - Date.parse(time.dateTime)) / 86400000);
    if (days >= 0) time.append(days === 0 ? " (today)" : ` (${days} day${days === 1 ? "" : "s"} ago)`);
  }
  for (const value of document.querySelectorAll("abbr.measured")) value.tabIndex = 0;
  const form = document.querySelector("form.ledger-filter");
  if (!form) return;
  const rows = [...document.querySelectorAll("table.ledger tbody tr")];
  const shows = (row, name, value) =>
    !value || (name === "text" ? row.textContent.toLowerCase().includes(value.toLowerCase())
      : name === "measured" ? row.dataset.measured.includes(value) : row.dataset[name] === value);
  const update = () => {
    const wanted = [...new FormData(form)];
    for (const row of rows) row.hidden = !wanted.every(([name, value]) => shows(row, name, value));
    form.querySelector("output").value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
});
