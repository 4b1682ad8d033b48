// Search excerpts are fetched with XHR, which browsers refuse for pages opened from disk.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
