// The architecture explorer. Its numbers are those of cost_table, put into the page when the site is built.
const nets = JSON.parse(document.getElementById('explorer-data').textContent)
const root = document.getElementById('explorer')
const number = (n, digits = 0) => n.toLocaleString('en', {maximumFractionDigits: digits, minimumFractionDigits: digits})
const sum = values => values.reduce((a, b) => a + b, 0)

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v)
  element.append(...children)
  return element
}

// Layers as cost_table lists them, cut into blocks: group1.0 is one, stem is one, stages.1.0 is one
function blocksOf(layers, coarser = 0) {
  const blocks = []
  for (const layer of layers) {
    const parts = layer.name.split('.')
    const depth = /^(stem|head|\d+)$/.test(parts[0]) ? 1 : parts[0] === 'stages' ? 3 : 2 - coarser
    const name = parts.slice(0, Math.min(depth, Math.max(1, parts.length - 1))).join('.')
    if (blocks.at(-1)?.name === name) blocks.at(-1).layers.push(layer)
    else blocks.push({name, layers: [layer], times: 1})
  }
  return blocks
}

// Neighbours that differ in nothing but their name become one bar
function folded(blocks) {
  const facts = b => b.name.split('.')[0] + JSON.stringify(b.layers.map(({name, ...rest}) => rest))
  const out = []
  for (const block of blocks) {
    const before = out.at(-1)
    if (before && facts(before) === facts(block)) Object.assign(before, {times: before.times + 1, last: block.name})
    else out.push(block)
  }
  return out
}

function layersOf(net, width, size) {
  const {params, sizes} = nets[net].widths[width], at = sizes[size]
  return nets[net].layers.map(([name, kind], i) =>
    ({name, kind, output: at.output[i], params: params[i], MACs: at.MACs[i], memory: at.memory[i]}))
}

function layerTable(block) {
  const columns = ['layer', 'kind', 'output', 'parameters', 'multiply-adds', 'memory, KB']
  const head = make('tr', {}, ...columns.map(text => make('th', {scope: 'col'}, text)))
  const cells = l => [l.name, l.kind, l.output, number(l.params), number(l.MACs), number(l.memory, 1)]
  const rows = block.layers.map(l => make('tr', {}, ...cells(l).map(text => make('td', {}, text))))
  return make('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Layers of ${block.name}`},
    make('table', {class: 'table'}, make('thead', {}, head), make('tbody', {}, ...rows)))
}

// As wide as the image is large, as tall as it has channels, darker where more is computed
function bar(shape, size, share) {
  const [channels, side = 1] = shape.split(' ')[0].split('x').map(Number)
  const box = make('span', {class: 'bar', 'aria-hidden': true})
  box.style.width = `${Math.max(2, 100*side/size)}%`
  box.style.height = `${Math.max(4, 1.1*Math.sqrt(channels))}px`
  box.style.setProperty('--share', `${Math.round(25 + 75*Math.sqrt(share))}%`)
  return make('span', {class: 'drawing'}, box)
}

function row(block, size, most) {
  const total = key => block.times*sum(block.layers.map(l => l[key]))
  const shape = block.layers.findLast(l => l.output).output
  const alike = make('span', {class: 'label'}, `${block.times} alike, together`)
  const name = block.times > 1 ? [`${block.name} to ${block.last.split('.').at(-1)}`, alike] : [block.name]
  const value = (label, text) => make('span', {class: 'value'}, make('span', {class: 'label'}, label), ' ' + text)
  return make('li', {}, make('details', {}, make('summary', {}, bar(shape, size, total('MACs')/most),
    make('span', {class: 'name'}, ...name), value('output', shape), value('parameters', number(total('params'))),
    value('multiply-adds', number(total('MACs'))), value('memory', number(total('memory'), 1) + ' KB')),
    layerTable(block)))
}

function saving(mine, basic) {
  const line = (what, i) => [['bottlenecks', mine[i]], ['two 3x3 each', basic[i]]].map(([label, v]) => {
    const meter = make('span', {class: 'meter', 'aria-hidden': true})
    meter.style.width = `${100*v/basic[i]}%`
    return make('div', {class: 'line'}, make('span', {}, `${what}, ${label}`),
      make('span', {class: 'track'}, meter), make('span', {class: 'amount'}, number(v)))
  })
  return make('section', {'aria-labelledby': 'saving'}, make('h2', {id: 'saving'}, 'What the bottleneck saves'),
    make('p', {}, 'With two 3x3 convolutions in place of each bottleneck, and the same channels between the blocks, '
      + `this net would have ${number(basic[0]/mine[0], 1)} times the parameters and `
      + `${number(basic[1]/mine[1], 1)} times the multiply-adds.`),
    ...line('parameters', 0), ...line('multiply-adds', 1))
}

function choice(id, label, options, value) {
  const select = make('select', {id, class: 'form-select'}, ...options.map(o => make('option', {value: o}, o || 'no other net')))
  select.value = value
  select.addEventListener('change', () => { problem.hidden = true; show(true) })
  return make('p', {}, make('label', {for: id}, label), select)
}

const widths = Object.keys(nets.resnet50.widths), sizes = Object.keys(nets.resnet50.widths[64].sizes)
const USUAL = {net: 'resnet50', size: '224', width: '64', with: ''}
const OPTIONS = {net: Object.keys(nets), size: sizes, width: widths, with: ['', ...Object.keys(nets)]}
const output = make('div', {id: 'explorer-output'}), problem = make('p', {class: 'problem', role: 'alert', hidden: ''})
const opened = new Set()  // names of the blocks that the reader has opened: they stay open in another net

// What an address asks for; `null` if it is that of a place in the page
function asked() {
  let hash
  try { hash = decodeURIComponent(location.hash.slice(1)) }
  catch { return {found: {...USUAL}, wrong: ['this address cannot be read; choose a net below'] } }
  if (hash && !hash.includes('=')) return null
  const found = {...USUAL}, wrong = []
  for (const [key, value] of new URLSearchParams(hash))
    if (!(key in OPTIONS)) wrong.push(`nothing here is called ${key}; an address may name ${Object.keys(OPTIONS).join(', ')}`)
    else if (!OPTIONS[key].includes(value)) wrong.push(`${key} ${value} is not here; choose among ${OPTIONS[key].filter(o => o).join(', ')}`)
    else found[key] = value
  return {found, wrong}
}

function follow() {
  const {found, wrong} = asked() ?? {found: null, wrong: []}
  if (!found) return document.getElementById(location.hash.slice(1))?.scrollIntoView()
  for (const key of Object.keys(OPTIONS)) document.getElementById(`explorer-${key}`).value = found[key]
  problem.hidden = !wrong.length
  problem.textContent = wrong.length ? `The address asks for what there is not: ${wrong.join('. Also, ')}. So you see the usual instead.` : ''
  show(false)
}

// One net: totals, what its bottlenecks save, its stack
function view(net, size, chosenWidth, id, paired) {
  const takes = Object.keys(nets[net].widths)[0] !== '', width = takes ? chosenWidth : ''
  const layers = layersOf(net, width, size), {total, basic} = nets[net].widths[width].sizes[size]
  let blocks = folded(blocksOf(layers))
  if (blocks.length > 40) blocks = folded(blocksOf(layers, 1))
  const most = Math.max(...blocks.map(b => b.times*sum(b.layers.map(l => l.MACs))))
  const fact = (what, label, text) => make('div', {}, make('dt', {}, label), make('dd', {id: what + id}, text))
  const rows = blocks.map(b => {
    const element = row(b, size, most), details = element.querySelector('details')
    if (nets[net].skips.includes(b.name)) {
      element.classList.add('skip')
      element.querySelector('.name').append(make('span', {class: 'label'}, 'with a skip connection'))
    }
    details.open = opened.has(b.name)
    details.addEventListener('toggle', () => { opened[details.open ? 'add' : 'delete'](b.name) })
    return element
  })
  const title = make('h2', {id: `stack${id}`}, `${net}, from image to answer`)
  return {takes, total, element: make('div', {class: 'net'}, ...(paired ? [title] : []),
    make('div', {role: 'status'}, make('dl', {class: 'totals'}, fact('total-params', 'parameters', number(total[0])),
      fact('total-macs', 'multiply-adds', number(total[1])), fact('total-memory', 'memory, KB', number(total[2], 1)))),
    ...(basic && !paired ? [saving(total, basic)] : []), ...(paired ? [] : [title]),
    make('ol', {class: 'stack'}, make('li', {class: 'image'}, bar(`3x${size}x${size}`, size, 0),
      make('span', {class: 'name'}, 'image'), make('span', {class: 'value'}, `3x${size}x${size}`)), ...rows))}
}

function show(write) {
  const [net, size, width, other] = ['net', 'size', 'width', 'with'].map(key => document.getElementById(`explorer-${key}`).value)
  const one = view(net, size, width, '', !!other), two = other && view(other, size, width, '-2', true)
  document.getElementById('explorer-width').disabled = !one.takes && !(two && two.takes)
  const times = (what, i) => `${number(two.total[i]/one.total[i], 2)} times the ${what}`
  output.classList.toggle('two', !!two)
  output.replaceChildren(...(two ? [make('p', {class: 'beside'}, `${other} has ${times('parameters', 0)}, ${times('multiply-adds', 1)} `
    + `and ${times('memory', 2)} of ${net}.`), make('div', {class: 'beside'}, one.element, two.element)] : [one.element]))
  const said = {net, size, ...(one.takes || two?.takes ? {width} : {}), ...(other ? {with: other} : {})}
  if (write) history.replaceState(null, '', '#' + new URLSearchParams(said))
}

root.replaceChildren(make('form', {class: 'controls'}, choice('explorer-net', 'Net', OPTIONS.net, USUAL.net),
  choice('explorer-size', 'Image, pixels', sizes, USUAL.size), choice('explorer-width', 'Width, channels', widths, USUAL.width),
  choice('explorer-with', 'Beside it', OPTIONS.with, USUAL.with)), problem, output)
const first = asked()
if (first) follow()
else {
  show(false)
  document.getElementById(location.hash.slice(1))?.scrollIntoView()
}
addEventListener('hashchange', follow)
