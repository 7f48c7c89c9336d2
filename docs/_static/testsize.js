/* Chapter 9: nets of one training size, tested at any; what the average over the last map's places makes of it. The numbers are
the chapter's own, means over its seeds: {trained size: {sizes, built: accuracy in %, cells: the same over whole cells alone}}. */
(() => {
const {make, number, speaker} = widget
const root = document.getElementById('play-testsize'), data = JSON.parse(document.getElementById('testsize-data').textContent)
const voice = speaker(), shown = make('output', {for: 'testsize-px'}), told = make('p', {class: 'play-answer'}), note = make('p', {class: 'play-note'})
const chart = make('div'), grid = make('div', {class: 'last-map', role: 'img'})
const which = make('select', {id: 'testsize-trained', class: 'form-select', change() { begin(Number(which.value)) }},
  ...Object.keys(data).map(px => make('option', {value: px}, `${px} px`)))
const slider = make('input', {id: 'testsize-px', type: 'range', step: 1, input: show})

function begin(px) {
  const {sizes} = data[which.value]
  slider.max = sizes.length - 1
  slider.value = sizes.indexOf(px)
  show()
}
function show() {
  const {sizes, built, cells} = data[which.value], i = Number(slider.value), px = sizes[i], side = Math.ceil(px/32), whole = Math.max(1, Math.floor(px/32))
  shown.textContent = `${px} px`
  slider.setAttribute('aria-valuetext', `${px} pixels`)
  chart.replaceChildren(lineChart({label: `Accuracy against test size, at ${px} px ${number(built[i])}%`, mark: px,
    lines: [{look: 'way', points: sizes.map((s, k) => [s, cells[k]])}, {look: 'conv', points: sizes.map((s, k) => [s, built[k]])}],
    x: {label: 'side of the test images, px', from: sizes[0], to: sizes.at(-1), ticks: sizes.filter(s => s % 32 === 0)},
    y: {from: 0, to: 100, ticks: [0, 50, 100].map(v => [v, `${v}%`])}}))
  grid.style.gridTemplateColumns = Array.from({length: side}, (_, k) => `${Math.min(32, px - 32*k)}fr`).join(' ')
  grid.style.gridTemplateRows = grid.style.gridTemplateColumns
  grid.replaceChildren(...Array.from({length: side*side}, (_, k) => make('span', {class: Math.floor(k/side) < whole && k%side < whole ? '' : 'edge'})))
  const part = side*side - whole*whole
  grid.setAttribute('aria-label', `${side}x${side} places of the last map, ${part} of them not whole`)
  told.replaceChildren(make('strong', {}, `${number(built[i])}%`), ` right at ${px} px; `, make('span', {class: 'key way'}, `${number(cells[i])}%`),
    ' if only whole cells vote')
  note.textContent = `The last map has ${side}x${side} places` + (part ? `; ${part} of them see less than 32 px of image, and vote like the rest.` : ', and each sees 32 px.')
  voice.say(`${px} pixels: ${told.textContent}`)
}
root.replaceChildren(make('div', {class: 'conv-controls'}, make('p', {}, make('label', {for: which.id}, 'Last trained at'), which),
  make('p', {}, make('label', {for: slider.id}, 'Tested at'), shown, slider)), told,
  make('div', {class: 'chart-pair'}, make('figure', {}, chart, make('figcaption', {}, 'Mean of three nets. ', make('span', {class: 'key conv'}, 'as built'), ', ',
    make('span', {class: 'key way'}, 'whole cells only'))), make('figure', {}, grid, make('figcaption', {}, note))), voice.element)
begin(33)
})()
