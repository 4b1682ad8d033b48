// The theme loads the search's script on every page, whereupon Sphinx takes each for the page of
// results and does not mark the words that were searched for.
document.addEventListener("DOMContentLoaded", () => {
  if (!document.getElementById("search-results")) SphinxHighlight.highlightSearchWords();
});
