/* Chapter 1: a 3x3 kernel to drag over a photograph, its nine products and their sum, and the picture of all sums */
(() => {
const {make, paint, speaker} = widget
const root = document.getElementById('play-conv'), W = Number(root.dataset.width), H = Number(root.dataset.height)
const grey = Float32Array.from(atob(root.dataset.photo), c => c.charCodeAt(0)/255)
const PRESETS = {
  'left to right (Sobel)': [-1, 0, 1, -2, 0, 2, -1, 0, 1], 'top to bottom (Sobel)': [-1, -2, -1, 0, 0, 0, 1, 2, 1],
  'blur': Array(9).fill(0.11), 'sharpen': [0, -1, 0, -1, 5, -1, 0, -1, 0], 'outline': [-1, -1, -1, -1, 8, -1, -1, -1, -1],
  'nothing changed': [0, 0, 0, 0, 1, 0, 0, 0, 0], 'moved to the left': [0, 0, 0, 0, 0, 1, 0, 0, 0]}
const voice = speaker()
let kernel = [...Object.values(PRESETS)[0]], stride = 1, padding = 0, at = [15, 16], sums, h, w  // the place is one of the output's

const field = (id, label, options, change) => make('p', {}, make('label', {for: id}, label),
  make('select', {id, class: 'form-select', change}, ...options.map(([value, text]) => make('option', {value}, text))))
const photo = make('canvas', {class: 'pixels', tabindex: 0, role: 'application', 'aria-describedby': 'conv-keys',
  'aria-label': 'Photograph with the kernel on it'})
const result = make('canvas', {class: 'pixels', role: 'img', 'aria-label': 'The picture of all sums'})
const cells = kernel.map((v, i) => make('input', {type: 'number', step: 'any', value: v, 'aria-label':
  `kernel, row ${Math.floor(i/3) + 1}, column ${i%3 + 1}`, input() {
  kernel[i] = Number(cells[i].value) || 0
  preset.value = ''
  compute()
}}))
const products = make('div', {class: 'conv-products', role: 'img'}), total = make('p', {class: 'conv-sum'}), size = make('p', {class: 'play-note'})
const choose = field('conv-preset', 'Kernel', [...Object.keys(PRESETS).map(k => [k, k]), ['', 'yours']], () => {
  if (preset.value) kernel = [...PRESETS[preset.value]]
  cells.forEach((cell, i) => { cell.value = kernel[i] })
  compute()
})
const preset = choose.querySelector('select')
const pixel = (y, x) => y < 0 || x < 0 || y >= H || x >= W ? 0 : grey[y*W + x]
const window_ = ([y, x]) => kernel.map((_, i) => pixel(y*stride - padding + Math.floor(i/3), x*stride - padding + i%3))
const dot = place => window_(place).reduce((a, v, i) => a + v*kernel[i], 0)

function compute() {
  h = Math.floor((H + 2*padding - 3)/stride) + 1
  w = Math.floor((W + 2*padding - 3)/stride) + 1
  sums = Float32Array.from({length: h*w}, (_, i) => dot([Math.floor(i/w), i%w]))
  size.textContent = `The photograph has ${H}x${W} pixels, the new picture ${h}x${w}.`
  move(at)
}

// Pixels as large as `zoom`, and a frame around some of them
function framed(canvas, values, width, height, zoom, [y, x, side], high) {
  const small = paint(make('canvas'), values, width, height, 0, high, v => Array(3).fill(Math.round(255*Math.min(1, v))))
  canvas.width = W*zoom
  canvas.height = H*zoom
  const ctx = canvas.getContext('2d'), scale = W*zoom/width
  ctx.imageSmoothingEnabled = false
  ctx.drawImage(small, 0, 0, width*scale, height*scale)
  for (const [colour, line] of [['#000', 5], ['#ff8c00', 3]]) {
    ctx.strokeStyle = colour
    ctx.lineWidth = line
    ctx.strokeRect(x*scale, y*scale, side*scale, side*scale)
  }
}

function move([y, x]) {
  at = [Math.min(h - 1, Math.max(0, y)), Math.min(w - 1, Math.max(0, x))]
  const under = window_(at), [row, column] = at.map(v => v*stride - padding), sum = dot(at)
  framed(photo, grey, W, H, 5, [row, column, 3], 1)
  const sizes = sums.map(Math.abs), high = Float32Array.from(sizes).sort()[Math.floor(.99*sizes.length)]
  framed(result, sizes, w, h, 5, [...at, 1], high || 1)
  const text = v => v.toFixed(2).replace(/^-0\.00$/, '0.00')
  products.replaceChildren(...under.map((v, i) => make('span', {}, make('small', {}, `${text(v)} x ${Number(kernel[i].toFixed(2))}`),
    text(v*kernel[i]))))
  products.setAttribute('aria-label', `Nine products: ${under.map((v, i) => text(v*kernel[i])).join(', ')}`)
  total.textContent = `Their sum: ${text(sum)}`
  voice.say(`row ${at[0]}, column ${at[1]}: sum ${text(sum)}`, 400)
}

let dragging = false
for (const [canvas, back] of [[photo, v => Math.round((v + padding - 1.5)/stride)], [result, Math.floor]]) {
  const place = event => {
    const box = canvas.getBoundingClientRect(), across = canvas === photo ? W : w
    return [event.clientY - box.top, event.clientX - box.left].map(v => back(v/box.width*across))
  }
  canvas.addEventListener('pointerdown', event => { canvas.setPointerCapture(event.pointerId); dragging = true; move(place(event)) })
  canvas.addEventListener('pointermove', event => { if (dragging) move(place(event)) })
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { dragging = false })
}
photo.addEventListener('keydown', event => {
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key]
  if (!step) return
  event.preventDefault()
  move([at[0] + step[0], at[1] + step[1]])
})
root.replaceChildren(make('div', {class: 'conv-controls'}, choose,
  field('conv-stride', 'Stride', [1, 2, 3].map(v => [v, v]), event => { stride = Number(event.target.value); compute() }),
  field('conv-padding', 'Padding', [0, 1].map(v => [v, v]), event => { padding = Number(event.target.value); compute() })),
  make('div', {class: 'conv-pictures'},
    make('figure', {}, photo, make('figcaption', {id: 'conv-keys'}, 'Drag the frame, or move it with the arrow keys.')),
    make('figure', {}, result, make('figcaption', {}, 'All sums, without their sign: bright is far from zero.'))),
  make('div', {class: 'conv-numbers'}, make('div', {role: 'group', 'aria-label': 'Kernel'}, make('p', {class: 'play-note'},
    'The kernel: write into it'), make('div', {class: 'conv-kernel'}, ...cells)),
    make('div', {}, make('p', {class: 'play-note'}, 'pixel x kernel'), products, total)), size, voice.element)
compute()
})()
