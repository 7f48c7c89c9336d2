/* Chapter 5: a slider for the depth of a plain and of a residual net: how they learned, and their gradients before the first step.
The numbers are the chapter's own, means over its seeds: {layers, losses: {net: by epoch}, norms: {net: by block}} for each depth. */
(() => {
const {make, number, speaker} = widget
const root = document.getElementById('play-depth'), runs = JSON.parse(document.getElementById('depth-data').textContent)
const LOOKS = {plain: 'conv', residual: 'way'}, voice = speaker()
const shown = make('output', {for: 'depth-layers'}), charts = make('div', {class: 'chart-pair'}), told = make('p', {class: 'play-answer'})
const slider = make('input', {id: 'depth-layers', type: 'range', min: 0, max: runs.length - 1, step: 1, value: runs.length - 1, input: show})
const figure = (chart, caption) => make('figure', {}, chart, make('figcaption', {}, caption))

function show() {
  const {layers, losses, norms} = runs[slider.value], names = Object.keys(losses)
  shown.textContent = `${layers} layers`
  slider.setAttribute('aria-valuetext', `${layers} layers`)
  const ends = names.map(name => `${name} ${number(losses[name].at(-1), 2)}`).join(', ')
  const n = norms[names[0]].length, grown = names.map(name => norms[name][0]/norms[name].at(-1))
  charts.replaceChildren(
    figure(lineChart({label: `Training loss by epoch. In the end: ${ends}`, lines: names.map(name => ({look: LOOKS[name], points: losses[name].map((v, i) => [i + 1, v])})),
      x: {label: 'epoch', from: .8, to: losses[names[0]].length + .2, ticks: losses[names[0]].map((_, i) => i + 1)},
      y: {from: 0, to: 2.6, ticks: [0, 1, 2]}}), 'Training loss, mean of three seeds. At 2.3 a net is guessing.'),
    figure(lineChart({label: `Gradient at each block: at the first layer ${names.map((name, i) => `${name} ${number(grown[i], grown[i] < 10 ? 1 : 0)} times`).join(', ')} that at the last block`,
      lines: names.map(name => ({look: LOOKS[name], points: norms[name].map((v, i) => [i, v])})),
      x: {label: 'block, 0 is the first layer', from: 0, to: Math.max(n - 1, 1), ticks: [0, n - 1]},
      y: {from: 1e-3, to: 1e2, log: true, ticks: [[1e-3, '0.001'], [1e-2, '0.01'], [.1, '0.1'], [1, '1'], [10, '10'], [100, '100']]}}),
      'Norm of the gradient before the first step. It travels from right to left.'))
  told.replaceChildren(...names.flatMap((name, i) => [i ? '; ' : '', make('span', {class: `key ${LOOKS[name]}`}, name),
    ` ends at ${number(losses[name].at(-1), 2)}, its gradient grows ${number(grown[i], grown[i] < 10 ? 1 : 0)} times on the way back`]), '.')
  voice.say(`${layers} layers: ${told.textContent}`)
}
root.replaceChildren(make('p', {}, make('label', {for: slider.id}, 'Depth'), ' ', shown), slider, told, charts, voice.element)
show()
})()
