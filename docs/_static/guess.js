/* Guesses, and chapters that have been read, are kept in this browser only: under one name in its storage, which nobody else
reads. Where there is no storage, nothing of this is shown. */
(() => {
const NAME = 'resnet_course'
let kept
try { localStorage.getItem(NAME) } catch { return }  // it keeps nothing
function load() {  // as it is now: another tab may have written
  let was
  try { was = JSON.parse(localStorage.getItem(NAME)) } catch { /* not written here */ }
  kept = {guesses: {...was?.guesses}, read: {...was?.read}}
}
load()
const keep = () => { try { localStorage.setItem(NAME, JSON.stringify(kept)) } catch { /* it is full */ } }
const make = (tag, attributes, ...children) => {
  const element = document.createElement(tag)
  for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v)
  element.append(...children)
  return element
}

function show() {
  for (const place of document.querySelectorAll('p.guessed')) {
    const guess = kept.guesses[place.dataset.guess]
    place.hidden = !guess
    place.replaceChildren(make('b', {}, 'You guessed: '), guess ?? '')
  }
  // In the menu, what has been read has a tick
  for (const link of document.querySelectorAll('.bd-sidebar-primary a.reference')) {
    const read = kept.read[link.pathname.split('/').at(-1).replace('.html', '')]
    link.classList.toggle('read', !!read)
    link.querySelector('.visually-hidden')?.remove()
    if (read) link.append(make('span', {class: 'visually-hidden'}, ' (read)'))
  }
}

for (const form of document.querySelectorAll('form.guess')) {
  const name = form.dataset.guess, field = form.querySelector('input'), said = form.querySelector('[role=status]')
  field.value = kept.guesses[name] ?? ''
  form.hidden = false
  form.addEventListener('submit', event => {
    event.preventDefault()
    const guess = field.value.trim()
    load()
    if (guess) kept.guesses[name] = guess
    else delete kept.guesses[name]
    keep()
    show()
    said.textContent = guess ? 'Kept, in this browser only. You will meet it again beside the answer.' : 'Forgotten.'
  })
}

for (const place of document.querySelectorAll('.chapter-done')) {
  const chapter = place.dataset.chapter, button = make('button', {type: 'button', class: 'play-button'})
  const tell = () => {
    button.textContent = kept.read[chapter] ? '✓ You have read this chapter' : 'I have read this chapter'
    button.setAttribute('aria-pressed', !!kept.read[chapter])
  }
  button.addEventListener('click', () => {
    const was = kept.read[chapter]
    load()
    if (was) delete kept.read[chapter]
    else kept.read[chapter] = true
    keep()
    tell()
    show()
  })
  tell()
  place.append(button)
  place.hidden = false
}

const progress = document.getElementById('progress')
function tally() {
  const links = [...document.querySelectorAll('article table a[href*="nbs/"]')]
  const all = new Map(links.map(a => [a.pathname.split('/').at(-1).replace('.html', ''), a.textContent]))
  const read = [...all.keys()].filter(stem => kept.read[stem]), next = [...all.keys()].find(stem => !kept.read[stem])
  const bar = make('progress', {max: all.size, value: read.length, 'aria-label': 'Chapters that you have read'})
  const forget = make('button', {type: 'button', class: 'play-button'}, 'Forget all of it'), title = make('h2', {tabindex: -1}, 'How far you have come')
  const link = next && make('a', {href: `../nbs/${next}.html`}, all.get(next))
  let sure = false
  forget.addEventListener('blur', () => {
    sure = false
    forget.textContent = 'Forget all of it'
  })
  forget.addEventListener('click', () => {
    if (!sure) {
      sure = true
      forget.textContent = 'Sure? It cannot be undone'
      return
    }
    kept = {guesses: {}, read: {}}
    try { localStorage.removeItem(NAME) } catch { /* then there was nothing */ }
    tally()
    show()
    progress.querySelector('h2').focus()
  })
  progress.replaceChildren(title,
    make('p', {role: 'status'}, `${read.length} of ${all.size} chapters read, guesses kept: ${Object.keys(kept.guesses).length}. `
      + 'A button at the end of each chapter marks it. All of it stays in this browser.'), bar,
    make('p', {class: 'play-buttons'}, ...(read.length && link ? ['Next: ', link] : []), forget))
}
if (progress) {
  progress.hidden = false
  tally()
}
show()
})()
