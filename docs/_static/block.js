/* Chapters 5 and 6: a block to build, drawn with its shapes, and what it costs as cost_table counts it */
(() => {
const {make, number, speaker} = widget
const root = document.getElementById('play-block'), SIDES = [7, 14, 28, 56, 112], CHANNELS = [16, 32, 64, 128, 256, 512, 1024, 2048]
const KINDS = {plain: 'plain: two 3x3', residual: 'residual: two 3x3 and a shortcut', bottleneck: 'bottleneck: 1x1, 3x3, 1x1 and a shortcut'}
const voice = speaker(), picture = make('div', {role: 'img'}), cost = make('div'), note = make('p', {class: 'play-note'})
const choose = (id, label, options, value) => {
  const select = make('select', {id: `block-${id}`, class: 'form-select', change: show},
    ...options.map(([v, text]) => make('option', {value: v, selected: String(v) === String(value)}, text)))
  return {select, element: make('p', {}, make('label', {for: `block-${id}`}, label), select)}
}
const same = values => values.map(v => [v, v])
const kind = choose('kind', 'Block', Object.entries(KINDS), root.dataset.kind), ni = choose('ni', 'Channels in', same(CHANNELS), root.dataset.channels)
const nf = choose('nf', 'Channels out', same(CHANNELS), root.dataset.channels), stride = choose('stride', 'Stride', same([1, 2]), 1)
const side = choose('side', 'Side, pixels', same(SIDES), root.dataset.side)

// Layers of the main path and of the shortcut: [kind, channels in, channels out, side of the output]
function layersOf(kind, ni, nf, stride, side) {
  const out = Math.floor((side - 1)/stride) + 1, mid = nf/4
  const main = kind === 'bottleneck' ? [['1x1', ni, mid, side], ['3x3', mid, mid, out], ['1x1', mid, nf, out]]
    : [['3x3', ni, nf, out], ['3x3', nf, nf, out]]
  const way = kind === 'plain' ? null : [...(stride > 1 ? [['average pool', ni, ni, out]] : []), ...(ni === nf ? [] : [['1x1', ni, nf, out]])]
  return {main, way, out}
}
// A convolution has ni*nf*ks*ks weights, each used once for each place of the output; its norm has 2*nf more
function costOf(layers) {
  const convs = layers.filter(([what]) => what !== 'average pool'), weights = ([what, a, b]) => a*b*Number(what[0])**2
  return {params: convs.reduce((n, l) => n + weights(l) + 2*l[2], 0), macs: convs.reduce((n, l) => n + weights(l)*l[3]**2, 0)}
}

const SVG = 'http://www.w3.org/2000/svg'
const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS(SVG, tag)
  for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v)
  element.append(...children)
  return element
}
function draw({main, way, out}, n, f, first) {
  const STEP = 62, height = 70 + STEP*main.length + (way ? 46 : 20), middle = 120, far = 295, last = 34 + STEP*main.length
  const line = (...points) => svg('polyline', {points: points.map(p => p.join()).join(' '), class: 'line'})
  const text = (x, y, words, look = '') => svg('text', {x, y, class: look}, words)
  const box = (x, y, words, look) => svg('g', {}, svg('rect', {x: x - 75, y, width: 150, height: 30, rx: 5, class: look}), text(x, y + 20, words))
  const parts = [text(middle, 16, `${n} x ${first} x ${first}`, 'small'), line([middle, 22], [middle, last + (way ? 20 : 30)])]
  if (way) parts.push(line([middle, 28], [far, 28], [far, last + 22], [middle + 14, last + 22]))
  main.forEach(([what, , channels, s], i) => {
    const act = i < main.length - 1 || !way ? ', norm, ReLU' : ', norm', y = 38 + STEP*i
    parts.push(box(middle, y, what + act, 'conv'), text(middle - 8, y + 46, `${channels} x ${s} x ${s}`, 'small before'))
  })
  const turns = way?.length ? way : way ? [['nothing: as it is']] : []
  turns.forEach(([what], i) => parts.push(box(far, 60 + STEP*i, what === '1x1' ? '1x1, norm' : what, 'way')))
  if (way) parts.push(svg('circle', {cx: middle, cy: last + 22, r: 13, class: 'sum'}), text(middle, last + 28, '+'),
    line([middle, last + 36], [middle, last + 44]), text(middle, last + 60, `ReLU: ${f} x ${out} x ${out}`, 'small'))
  else parts.push(text(middle, last + 44, `${f} x ${out} x ${out}`, 'small'))
  return svg('svg', {viewBox: `0 0 ${way ? 380 : 240} ${height + 10}`, class: 'drawing block-drawing'}, ...parts)
}

function show() {
  const [what, a, b, s, n] = [kind.select.value, ...[ni, nf, stride, side].map(o => Number(o.select.value))]
  const layers = layersOf(what, a, b, s, n), all = costOf([...layers.main, ...(layers.way ?? [])])
  const other = what === 'bottleneck' ? 'residual' : 'bottleneck', theirs = layersOf(other, a, b, s, n)
  const cheap = costOf([...theirs.main, ...theirs.way])
  picture.replaceChildren(draw(layers, a, b, n))
  picture.setAttribute('aria-label', `${KINDS[what]}. ${layers.main.map(l => l[0]).join(', then ')}; `
    + (layers.way ? `beside them ${layers.way.map(l => l[0]).join(', then ') || 'what came in, as it is'}` : 'no way around them'))
  const fact = (id, label, text) => make('div', {}, make('dt', {}, label), make('dd', {id: `block-${id}`}, text))
  cost.replaceChildren(make('dl', {class: 'totals'}, fact('params', 'parameters', number(all.params)), fact('macs', 'multiply-adds', number(all.macs)),
    fact('out', 'output', `${b}x${layers.out}x${layers.out}`)))
  note.textContent = `A ${other} block between the same channels has ${number(cheap.params)} parameters and ${number(cheap.macs)} multiply-adds, `
    + `${number(cheap.macs/all.macs, 2)} times as many.`
  voice.say(`${number(all.params)} parameters, ${number(all.macs)} multiply-adds`)
}
root.replaceChildren(make('div', {class: 'conv-controls'}, ...[kind, ni, nf, stride, side].map(o => o.element)),
  make('div', {class: 'block-view'}, picture, make('div', {}, cost, note)), voice.element)
show()
})()
