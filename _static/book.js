// Ages of runs, provenance by keyboard and touch. All reads without it.
document.addEventListener("DOMContentLoaded", () => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const days = Math.floor((Date.now() - Date.parse(time.dateTime)) / 86400000);
    if (days >= 0) time.append(days === 0 ? " (today)" : ` (${days} day${days === 1 ? "" : "s"} ago)`);
  }
  for (const value of document.querySelectorAll("abbr.measured")) value.tabIndex = 0;
});
