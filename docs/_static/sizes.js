/* Chapters 1 and 7: how large each layer's output is, and how far one of its values sees */
(() => {
const {make, speaker} = widget
const PRESETS = {  // kernel, stride of each layer, padded by (kernel-1)/2
  'three 3x3': [[3, 1], [3, 1], [3, 1]], 'one 7x7, stride 2 (the stem of 2015)': [[7, 2]],
  'three 3x3, the first with stride 2 (the deep stem)': [[3, 2], [3, 1], [3, 1]],
  'the deep stem and its max-pool': [[3, 2], [3, 1], [3, 1], [3, 2]], 'five times stride 2': Array(5).fill([3, 2])}
const voice = speaker(), MOST = 30
for (const root of document.querySelectorAll('.play-sizes')) {
  const id = root.id, body = make('tbody'), told = make('p', {class: 'play-answer'})
  let layers
  const button = (text, click) => make('button', {type: 'button', class: 'play-button', click}, text)
  const more = button('One more layer', () => { if (layers.length < MOST) { layers.push([3, 1]); draw() } })
  const less = button('One less', () => { if (layers.length > 1) { layers.pop(); draw() } })
  const limits = make('p', {class: 'play-note', role: 'status'})
  const size = make('input', {id: `${id}-side`, type: 'number', min: 1, max: 9999, value: 224, input: compute})
  const preset = make('select', {id: `${id}-preset`, class: 'form-select', change: () => take(preset.value)},
    ...Object.keys(PRESETS).map(name => make('option', {value: name}, name)))
  function take(name) {
    layers = PRESETS[name].map(layer => [...layer])
    draw()
  }
  function draw() {
    const pick = (i, which, what, options) => make('select', {class: 'form-select', 'aria-label': `${what} of layer ${i + 1}`, change(event) {
      layers[i][which] = Number(event.target.value)
      compute()
    }}, ...options.map(v => make('option', {value: v, selected: v === layers[i][which]}, v)))
    body.replaceChildren(...layers.map((_, i) => make('tr', {}, make('td', {}, i + 1), make('td', {}, pick(i, 0, 'kernel', [1, 3, 5, 7])),
      make('td', {}, pick(i, 1, 'stride', [1, 2, 3, 4])), make('td'), make('td'), make('td'))))
    compute()
  }
  // A value sees (kernel-1) pixels more than the one before it, times the pixels between neighbours
  function compute() {
    let side = Math.min(9999, Math.max(1, Math.floor(Number(size.value)) || 1)), field = 1, step = 1
    limits.textContent = String(side) === size.value.trim() ? '' : `From 1 to 9999 pixels: taken as ${side}.`
    more.setAttribute('aria-disabled', layers.length === MOST)
    less.setAttribute('aria-disabled', layers.length === 1)
    layers.forEach(([ks, stride], i) => {
      side = Math.floor((side - 1)/stride) + 1
      field += (ks - 1)*step
      step *= stride
      ;[`${side}x${side}`, `${field}x${field}`, step].forEach((text, k) => { body.rows[i].cells[3 + k].textContent = text })
    })
    told.replaceChildren(`The output has ${side}x${side} pixels. Each of them sees `, make('strong', {}, `${field}x${field}`),
      ' pixels of the image.')
    voice.say(told.textContent)
  }
  const head = make('tr', {}, ...['layer', 'kernel', 'stride', 'output', 'sees', 'pixels apart'].map(text => make('th', {scope: 'col'}, text)))
  root.replaceChildren(make('div', {class: 'conv-controls'}, make('p', {}, make('label', {for: size.id}, 'Image, pixels'), size),
    make('p', {}, make('label', {for: preset.id}, 'Layers'), preset)),
    make('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Layers and sizes'},
      make('table', {class: 'table'}, make('thead', {}, head), body)),
    make('p', {class: 'play-buttons'}, more, less, `1 to ${MOST} layers`), limits, told, voice.element)
  preset.value = root.dataset.preset
  take(root.dataset.preset)
}
})()
