// The decision guide: hides the rules that an answer contradicts. Without it all rules are shown.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".guide-form");
  if (!form) return;
  const rules = [...document.querySelectorAll(".guide-rule")].map((box) => ({
    box,
    when: box.dataset.when.split(" ").filter(Boolean).map((part) => part.split("=")),
  }));
  const says = document.querySelector(".guide-says");

  function contradicts([question, answers]) {
    const given = form.elements[question].value;
    return given !== "" && !answers.split("|").includes(given);
  }

  function update() {
    let first = true;
    let shown = 0;
    for (const { box, when } of rules) {
      const applies = !when.some(contradicts);
      box.hidden = !applies;
      box.classList.toggle("guide-first", applies && first);
      if (applies) {
        first = false;
        shown += 1;
      }
    }
    says.textContent = `${shown} of ${rules.length} rules apply, in the order in which to try them.`;
    const given = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    history.replaceState(null, "", given.size ? `#${given}` : location.pathname + location.search);
  }

  function read() {
    const told = new URLSearchParams(location.hash.slice(1));
    if (![...told.keys()].some((name) => form.elements[name])) return;
    for (const list of form.querySelectorAll("select")) list.value = told.get(list.name) || "";
  }

  read();
  form.hidden = false;
  for (const link of document.querySelectorAll("a.guide-case"))
    link.addEventListener("click", (event) => {
      event.preventDefault();
      location.hash = link.hash;
      read();
      update();
      form.scrollIntoView();
      form.querySelector("select").focus({ preventScroll: true });
    });
  for (const link of document.querySelectorAll(".guide-cases ol a"))
    link.addEventListener("click", () => {
      form.reset();
      for (const { box } of rules) box.hidden = false;
    });
  form.addEventListener("change", update);
  form.addEventListener("reset", () => setTimeout(update));
  update();
});
