/* Chapter 3: a digit to move about in its square, and what both heads say to it at each of the 81 places. The numbers are the
chapter's own: `answers` holds, for each head, a byte for each digit, place and class, 255 being certain. */
(() => {
const {make, paint, percent, speaker} = widget
const root = document.getElementById('play-shift'), {digits, labels, side, answers} = JSON.parse(document.getElementById('shift-data').textContent)
const W = 2*side + 1, heads = Object.keys(answers).map(name => ({name, bytes: Uint8Array.from(atob(answers[name]), c => c.charCodeAt(0))}))
const voice = speaker()
let digit = 0, at = [0, 0]  // down and right of the middle, pixels
const scores = (bytes, [down, right]) => bytes.subarray(10*((digit*W + down + side)*W + right + side)).subarray(0, 10)

const pad = make('canvas', {class: 'pixels', tabindex: 0, role: 'application', 'aria-describedby': 'shift-keys',
  'aria-label': 'The digit in its square'})
for (const head of heads) {
  head.map = make('canvas', {class: 'pixels', role: 'img'})
  head.bars = make('ol', {class: 'play-bars'})
  head.told = make('p', {class: 'play-answer'})
  head.place = make('p', {class: 'play-note'})
}

function move([down, right]) {
  at = [down, right].map(v => Math.min(side, Math.max(-side, v)))
  const grey = new Float32Array(256)
  for (let i = 0; i < 64; i++) grey[(4 + at[0] + (i >> 3))*16 + 4 + at[1] + i%8] = parseInt(digits[digit][i], 17)/16
  framed(pad, paint(make('canvas'), grey, 16, 16, 0, 1, v => Array(3).fill(Math.round(255 - 225*v))))
  for (const head of heads) draw(head)
  const way = [[at[0], 'down', 'up'], [at[1], 'right', 'left']].filter(([n]) => n)
    .map(([n, more, less]) => `${Math.abs(n)} px ${n > 0 ? more : less}`).join(', ') || 'in the middle'
  where.textContent = `A ${labels[digit]}, ${way}`
  voice.say(`${way}: ${heads.map(h => `${h.name} says ${h.said}`).join(', ')}`)
}

function framed(canvas, small, frame) {
  canvas.width = canvas.height = 288
  const ctx = canvas.getContext('2d'), step = 288/small.width
  ctx.imageSmoothingEnabled = false
  ctx.drawImage(small, 0, 0, 288, 288)
  if (!frame) return
  for (const [colour, line] of [['#000', 6], ['#ff8c00', 3]]) {
    ctx.strokeStyle = colour
    ctx.lineWidth = line
    ctx.strokeRect(frame[1]*step, frame[0]*step, step, step)
  }
}

function draw(head) {
  const right = [], p = scores(head.bytes, at), best = p.indexOf(Math.max(...p))
  let read = 0
  for (let down = -side; down <= side; down++)
    for (let across = -side; across <= side; across++) {
      const here = scores(head.bytes, [down, across])
      right.push(here[labels[digit]]/255)
      read += here.indexOf(Math.max(...here)) === labels[digit]
    }
  framed(head.map, paint(make('canvas'), right, W, W, 0, 1), at.map(v => v + side))
  head.map.setAttribute('aria-label', `${head.name}: how sure of the ${labels[digit]} at each of ${W*W} places; right at ${read} of them`)
  head.said = `${best}, ${percent(p[best]/255)}`
  head.told.replaceChildren('says ', make('strong', {}, best), best === labels[digit] ? ', which is right' : ', which is wrong')
  head.place.textContent = `Right at ${read} of ${W*W} places. The map: how sure of the ${labels[digit]} it is at each.`
  head.bars.replaceChildren(...Array.from(p, (v, k) => make('li', {class: k === best ? 'best' : ''}, make('span', {}, k),
    make('span', {class: 'track'}, make('span', {class: 'meter', style: `width: ${v/2.55}%`})), make('span', {class: 'amount'}, percent(v/255)))))
}

const where = make('figcaption', {}), which = make('select', {id: 'shift-digit', class: 'form-select', change() {
  digit = Number(which.value)
  move(at)
}}, ...labels.map((label, i) => make('option', {value: i}, label)))
const arrow = (text, label, step) => make('button', {type: 'button', class: 'play-button', 'aria-label': label,
  click: () => move(at.map((v, i) => v + step[i]))}, text)
function follow(canvas, place) {
  let from
  canvas.addEventListener('pointerdown', event => { canvas.setPointerCapture(event.pointerId); from = {event, at}; place(event, from) })
  canvas.addEventListener('pointermove', event => { if (from) place(event, from) })
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { from = null })
}
follow(pad, (event, from) => move([event.clientY - from.event.clientY, event.clientX - from.event.clientX]
  .map((v, i) => from.at[i] + Math.round(16*v/pad.getBoundingClientRect().width))))
for (const {map} of heads)
  follow(map, event => {
    const box = map.getBoundingClientRect()
    move([event.clientY - box.top, event.clientX - box.left].map(v => Math.floor(W*v/box.width) - side))
  })
pad.addEventListener('keydown', event => {
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key]
  if (!step) return
  event.preventDefault()
  move(at.map((v, i) => v + step[i]))
})
root.replaceChildren(make('div', {class: 'shift-view'},
  make('section', {'aria-label': 'Digit'}, make('p', {}, make('label', {for: which.id}, 'Digit'), which), make('figure', {}, pad, where),
    make('p', {class: 'play-note', id: 'shift-keys'}, 'Drag it, or move it with the arrow keys.'),
    make('p', {class: 'play-buttons'}, arrow('←', 'left', [0, -1]), arrow('→', 'right', [0, 1]), arrow('↑', 'up', [-1, 0]),
      arrow('↓', 'down', [1, 0]), make('button', {type: 'button', class: 'play-button', click: () => move([0, 0])}, 'Middle'))),
  ...heads.map(head => make('section', {'aria-label': `The ${head.name} head`}, make('h3', {}, `The ${head.name} head`), head.told,
    head.map, head.place, head.bars))), voice.element)
move([0, 0])
})()
