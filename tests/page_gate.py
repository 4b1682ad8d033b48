"""What no page may show, seen by a browser: several tabs at once, so that a whole book takes seconds.

``problems(html, base, mode)`` opens every page under ``html`` from ``base`` and returns lines
``page: what is wrong``: errors and requests (browsing.Watch), layout, formulas, diagrams, texts
(``INSPECT``), and, when served, findings of axe-core of impact serious or critical.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browsing
import html_gate

AXE = Path(__file__).parent / "vendor" / "axe" / "axe.min.js"
# Accepted findings of axe-core, rule -> why it stays. This list may only get shorter:
# test_no_accepted_finding_has_gone fails for an entry that no page needs any more.
KNOWN: dict[str, str] = {}
TABS = 3

# folds fade in when they open: text half faded would be too pale
INSPECT = r"""() => {
  const still = document.createElement("style");
  still.textContent = "* { animation: none !important; transition: none !important; }";
  document.head.append(still);
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  const found = [], count = (css) => document.querySelectorAll(css).length;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push(`scrolls sideways by ${wide} px`);
  const titles = [...document.querySelectorAll("h1")].filter((title) => title.checkVisibility());
  if (titles.length !== 1) found.push(`${titles.length} titles`);
  const open = count("span.math, div.math") - count(".math mjx-container");
  if (open > 0) found.push(`${open} formulas not typeset`);
  if (count("mjx-merror")) found.push("a formula with an error");
  const undrawn = count("pre.mermaid") - count("pre.mermaid:has(svg)");
  if (undrawn) found.push(`${undrawn} diagrams not drawn`);
  if (count("svg[aria-roledescription=error]")) found.push("a diagram with a syntax error");
  for (const image of document.images) {
    if (!image.alt.trim()) found.push(`no alternative text: ${image.src}`);
    if (image.complete && !image.naturalWidth) found.push(`not shown: ${image.src}`);
  }
  const text = document.body.cloneNode(true);
  text.querySelectorAll("pre, code, script, style").forEach((node) => node.remove());
  for (const literal of ["{glue", "{measured", "$$", "\\(", "[!NOTE]"])
    if (text.textContent.includes(literal)) found.push(`literal ${literal}`);
  const dark = document.documentElement.dataset.theme === "dark";
  for (const image of document.querySelectorAll("article .cell_output img, pre.mermaid > svg"))
    if (dark && getComputedStyle(image).filter !== "none") found.push("a filtered figure");
  return found;
}"""

# Ten thousand coloured words of code cost seconds; one of each colour says as much.
CHECK = """async () => {
  const seen = new Set();
  for (const word of document.querySelectorAll("pre span[class]:not(:has(*))")) {
    const kind = `${word.className} ${word.closest("div[class]")?.className}`;
    if (seen.has(kind)) word.replaceWith(word.textContent);
    seen.add(kind);
  }
  const {violations} = await axe.run(document, {resultTypes: ["violations"], iframes: false});
  return violations.filter((found) => ["serious", "critical"].includes(found.impact))
    .flatMap((found) => found.nodes.map((node) => {
      const [first] = [...node.any, ...node.all, ...node.none];
      return [found.id, node.target.join(" "), first?.message || found.help];
    }));
}"""


def accepted(line: str) -> bool:
    """Whether a problem is a finding of axe-core that is known."""
    return line.partition(": ")[2].startswith(tuple(f"axe {rule}:" for rule in KNOWN))


def problems(html: Path, base: str, mode: str) -> list[str]:
    """Everything wrong on the pages under ``html``, opened from ``base``; sorted."""
    names = [path.relative_to(html).as_posix() for path in html_gate.page_files(html)]
    found, _ = visit_all(base, names, mode)
    return sorted(found)


def visit_all(base: str, names: list[str], mode: str) -> tuple[list[str], dict[str, float]]:
    """Problems of the named pages, and the seconds that each took."""
    path = browsing.need_browser()
    # in a thread of its own: the session's browser keeps an event loop running in this one
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(_visit_all(path, base, names, mode))).result()


async def _visit_all(path: str, base: str, names: list[str], mode: str) -> tuple[list, dict]:
    from playwright.async_api import async_playwright

    watch, left, seconds = browsing.Watch(base), list(reversed(names)), {}
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=browsing.FLAGS)
        context = await chromium.new_context(**browsing.MODES[mode])

        async def work() -> None:
            page = await context.new_page()
            watch.over(page)
            while left:
                name = left.pop()
                start = asyncio.get_running_loop().time()
                await page.goto(f"{base}/{name}")
                await page.evaluate(browsing.SETTLE)
                for problem in await page.evaluate(INSPECT):
                    watch.note(page, problem)
                if not base.startswith("file:"):  # what is on the page is the same from disk
                    await page.evaluate(AXE.read_text(encoding="utf8"))
                    for rule, where, what in await page.evaluate(CHECK):
                        watch.note(page, f"axe {rule}: {where}: {what}")
                seconds[name] = asyncio.get_running_loop().time() - start

        await asyncio.gather(*(work() for _ in range(TABS)))
        await chromium.close()
    return watch.problems, seconds
