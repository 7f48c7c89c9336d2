/* Chapter 5: a point on the loss surface of a net, to drag, and to let roll downhill. The heights are the chapter's own:
{ts: the steps along each direction, nets: {name: rows of losses}}. */
(() => {
const {make, number, paint, speaker} = widget
const root = document.getElementById('play-surface'), {ts, nets} = JSON.parse(document.getElementById('surface-data').textContent)
const names = Object.keys(nets), n = ts.length, low = ts[0], high = ts.at(-1), voice = speaker()
let name = names.at(-1), at = [.7, -.6], path = []

// Between four points of the grid, in proportion
function height([s, t]) {
  const z = nets[name], place = v => Math.min(n - 1.0001, Math.max(0, (v - low)/(high - low)*(n - 1)))
  const [a, b] = [place(s), place(t)], i = Math.floor(a), j = Math.floor(b), u = a - i, v = b - j
  return (z[j][i]*(1 - u) + z[j][i + 1]*u)*(1 - v) + (z[j + 1][i]*(1 - u) + z[j + 1][i + 1]*u)*v
}
const inside = p => p.map(v => Math.min(high, Math.max(low, v)))
const SIDE = 330, px = v => (v - low)/(high - low)*SIDE
const canvas = make('canvas', {tabindex: 0, role: 'application', width: SIDE, height: SIDE, 'aria-describedby': 'surface-keys', 'aria-label': 'Loss surface with a point on it'})
const told = make('p', {class: 'play-answer'}), note = make('p', {class: 'play-note'})
// Colours by the logarithm, as wide as the heights that occur: 0.02 to 6
const shade = z => (Math.log(Math.min(6, Math.max(.02, z))) - Math.log(.02))/(Math.log(6) - Math.log(.02))

function draw(moved = true) {
  const fine = 66, step = (high - low)/(fine - 1), ctx = canvas.getContext('2d')
  const values = Array.from({length: fine*fine}, (_, k) => shade(height([low + k%fine*step, low + Math.floor(k/fine)*step])))
  ctx.drawImage(paint(make('canvas'), values, fine, fine, 0, 1), 0, 0, SIDE, SIDE)
  for (const [colour, line] of [['#000', 4], ['#fff', 2]]) {
    ctx.strokeStyle = colour
    ctx.lineWidth = line
    ctx.beginPath()
    path.forEach((p, i) => ctx[i ? 'lineTo' : 'moveTo'](...p.map(px)))
    ctx.stroke()
    ctx.beginPath()
    ctx.arc(...at.map(px), 8, 0, 7)
    ctx.stroke()
  }
  const loss = height(at)
  told.replaceChildren('Loss here: ', make('strong', {}, number(loss, 2)), loss > Math.log(10) ? ', worse than a blind guess (2.30)' : '')
  const [s, t] = at.map(v => number(Math.round(100*v)/100 || 0, 2))
  note.textContent = `${s} and ${t} filter lengths from the trained weights, where it is ${number(height([0, 0]), 2)}.`
  if (moved) voice.say(`loss ${number(loss, 2)}`, 400)
}
function move(p) { path = []; at = inside(p); draw() }

// Downhill like SGD with momentum 0.9, until it lies still
function roll() {
  let speed = [0, 0]
  path = [at]
  for (let i = 0; i < 500; i++) {
    const d = .02, slope = [0, 1].map(k => {
      const more = inside(at.map((v, j) => v + d*(j === k))), less = inside(at.map((v, j) => v - d*(j === k)))
      return (height(more) - height(less))/(more[k] - less[k])
    })
    speed = speed.map((v, k) => .9*v - .0015*slope[k])
    path.push(at = inside(at.map((v, k) => v + speed[k])))
    if (Math.hypot(...speed) < 2e-4) break
  }
  draw(false)
  voice.say(`rolled to a loss of ${number(height(at), 2)}`, 0)
}
let dragging = false
const place = event => {
  const box = canvas.getBoundingClientRect()
  return [event.clientX - box.left, event.clientY - box.top].map(v => low + v/box.width*(high - low))
}
canvas.addEventListener('pointerdown', event => { canvas.setPointerCapture(event.pointerId); dragging = true; move(place(event)) })
canvas.addEventListener('pointermove', event => { if (dragging) move(place(event)) })
for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { dragging = false })
canvas.addEventListener('keydown', event => {
  const step = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, -.1], ArrowDown: [0, .1]}[event.key]
  if (!step) return
  event.preventDefault()
  move(at.map((v, k) => v + step[k]))
})
const which = make('select', {id: 'surface-net', class: 'form-select', change() { name = which.value; path = []; draw() }},
  ...names.map(v => make('option', {value: v, selected: v === name}, v)))
root.replaceChildren(make('div', {class: 'surface-view'},
  make('figure', {}, canvas, make('figcaption', {id: 'surface-keys'}, 'Drag the point, or move it with the arrow keys. Dark is low.')),
  make('div', {}, make('p', {}, make('label', {for: which.id}, 'Net'), which), told, note,
    make('p', {class: 'play-buttons'}, make('button', {type: 'button', class: 'play-button main', click: roll}, 'Let it roll'),
      make('button', {type: 'button', class: 'play-button', click: () => move([.7, -.6])}, 'Back up')))), voice.element)
draw(false)
})()
