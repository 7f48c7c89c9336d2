// A page read from disk may not fetch others, so search shows titles there and no excerpts.
if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false
// The theme complains at the first visit, when no mode is chosen.
document.documentElement.dataset.mode ||= localStorage.mode ??= 'auto'
