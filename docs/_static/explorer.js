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
  const select = make('select', {id, class: 'form-select'}, ...options.map(o => make('option', {value: o}, o)))
  select.value = options.includes(value) ? value : options[0]
  select.addEventListener('change', show)
  return make('p', {}, make('label', {for: id}, label), select)
}

const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)))
const chosen = {net: 'resnet50', size: '224', width: '64', ...asked}
const widths = nets.resnet50.widths, sizes = Object.keys(widths[64].sizes)
const output = make('div', {id: 'explorer-output'})

function show() {
  const net = document.getElementById('explorer-net').value
  const widthChoice = document.getElementById('explorer-width'), widths = Object.keys(nets[net].widths)
  const takesWidth = widths[0] !== ''
  widthChoice.disabled = !takesWidth
  const width = takesWidth ? widthChoice.value : '', size = document.getElementById('explorer-size').value
  const layers = layersOf(net, width, size), {total, basic} = nets[net].widths[width].sizes[size]
  let blocks = folded(blocksOf(layers))
  if (blocks.length > 40) blocks = folded(blocksOf(layers, 1))
  const most = Math.max(...blocks.map(b => b.times*sum(b.layers.map(l => l.MACs))))
  const fact = (id, label, text) => make('div', {}, make('dt', {}, label), make('dd', {id}, text))
  output.replaceChildren(
    make('div', {role: 'status'}, make('dl', {class: 'totals'}, fact('total-params', 'parameters', number(total[0])),
      fact('total-macs', 'multiply-adds', number(total[1])), fact('total-memory', 'memory, KB', number(total[2], 1)))),
    ...(basic ? [saving(total, basic)] : []),
    make('h2', {id: 'stack'}, `${net}, from image to answer`),
    make('ol', {class: 'stack'}, make('li', {class: 'image'}, bar(`3x${size}x${size}`, size, 0),
      make('span', {class: 'name'}, 'image'), make('span', {class: 'value'}, `3x${size}x${size}`)),
      ...blocks.map(b => row(b, size, most))))
  history.replaceState(null, '', '#' + new URLSearchParams(takesWidth ? {net, size, width} : {net, size}))
}

root.append(make('form', {class: 'controls'}, choice('explorer-net', 'Net', Object.keys(nets), chosen.net),
  choice('explorer-size', 'Image, pixels', sizes, chosen.size),
  choice('explorer-width', 'Width, channels', Object.keys(widths), chosen.width)), output)
root.hidden = false
show()
