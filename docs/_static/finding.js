// The order of what the search finds: what a page says often counts, and a chapter comes before the reference of its module.
const asked = (new URLSearchParams(location.search).get('q') || '').toLowerCase().match(/[a-z][a-z0-9_]{2,}/g) || []
const stems = asked.map(word => word.length > 4 ? word.replace(/s$/, '') : word)
const often = {}
for (const [word, counts] of Object.entries(SAID))
  if (stems.some(stem => word.startsWith(stem)))
    for (let i = 0; i < counts.length; i += 2) often[PAGES[counts[i]]] = (often[PAGES[counts[i]]] || 0) + counts[i + 1]
var Scorer = {
  score: ([page, title, anchor, descr, score]) =>
    score + 2 * Math.log2(1 + (often[page] || 0)) + (/^nbs\/[0-8]/.test(page) ? 2 : 0),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
}
addEventListener('DOMContentLoaded', () => {
  // An excerpt quotes the text, not the menus around it
  Search.htmlToText = (html, anchor) => {
    const article = new DOMParser().parseFromString(html, 'text/html').querySelector('article')
    if (!article) return ''
    for (const e of article.querySelectorAll('.headerlink, script, style, svg, .chapter-bar, .hero, details.hide > summary')) e.remove()
    const part = anchor && article.querySelector(anchor)  // an entry of the index marks a place without text
    return (part && part.textContent.trim() ? part : article).textContent
  }
  if (location.protocol === 'file:') document.getElementById('search-results').insertAdjacentHTML('beforebegin',
    '<p>Read from a disk, the search shows titles alone; on a server it quotes the text, too.</p>')
})
