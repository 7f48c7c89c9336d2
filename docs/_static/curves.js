// Compares recorded trainings: three curves at most, by epoch or by second, each with a band from its worst seed to its best.
(() => {
  const data = JSON.parse(document.getElementById('curves-data').textContent)
  const root = document.getElementById('curves')
  const first = ['128px-book', '128px-fast', 'laptop-first'].map(name => data.findIndex(d => d.record === name))
  const options = (list, chosen) => list.map(([value, said]) =>
    `<option value="${value}"${value === chosen ? ' selected' : ''}>${said}</option>`).join('')
  const escape = s => s.replace(/[&<>"]/g, c => `&#${c.charCodeAt()};`)
  const names = [[-1, 'none'], ...data.map((d, i) => [i, escape(d.name)])]
  root.innerHTML = '<div class="controls">' + first.map((chosen, i) =>
    `<label class="curve-${i}">Training ${i + 1}<select class="form-select">${options(names, chosen)}</select></label>`).join('') +
    `<label>Measure<select class="form-select">${options([['accuracy', 'accuracy, %'], ['valid_loss', 'validation loss'], ['train_loss', 'training loss']])}</select></label>` +
    `<label>By<select class="form-select">${options([['seconds', 'second'], ['epoch', 'epoch']])}</select></label></div>` +
    '<svg viewBox="0 0 760 340" role="img" aria-labelledby="curves-said"></svg><ul id="curves-said" aria-live="polite"></ul>'
  const [selects, svg, said] = [[...root.querySelectorAll('select')], root.querySelector('svg'), root.querySelector('ul')]

  // Round steps, about n of them, from low to high
  function ticks(low, high, n) {
    const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough))
    const step = [1, 2, 5, 10].map(k => k * power).find(s => s >= rough)
    const found = []
    for (let v = Math.ceil(low / step) * step; v <= high * 1.0001; v += step) found.push(+v.toPrecision(6))
    return found
  }

  function draw() {
    const [measure, by] = selects.slice(3).map(s => s.value)
    const times = measure === 'accuracy' ? 100 : 1
    const shown = selects.slice(0, 3).map((s, i) => [i, data[s.value]]).filter(([, d]) => d).map(([i, d]) => {
      const measured = d.seconds.map((_, e) => e).filter(e => d[measure][e].length)
      const seeds = measured.map(e => d[measure][e].map(v => v * times))
      return {
        i, name: d.name, x: measured.map(e => by === 'epoch' ? e + 1 : d.seconds[e]),
        mean: seeds.map(values => values.reduce((a, b) => a + b) / values.length),
        low: seeds.map(values => Math.min(...values)), high: seeds.map(values => Math.max(...values)),
      }
    })
    if (!shown.length) { svg.innerHTML = ''; said.innerHTML = '<li>Choose a training to see its curve.</li>'; return }
    const [left, right, top, bottom] = [48, 748, 12, 300]
    const far = Math.max(...shown.flatMap(d => d.x))
    const [low, high] = [Math.min(...shown.flatMap(d => d.low)), Math.max(...shown.flatMap(d => d.high))]
    const margin = (high - low) * .05 || 1
    const x = v => left + (right - left) * v / far
    const y = v => bottom - (bottom - top) * (v - low + margin) / (high - low + 2 * margin)
    const line = (xs, ys) => xs.map((v, e) => `${x(v).toFixed(1)} ${y(ys[e]).toFixed(1)}`).join('L')
    svg.innerHTML =
      ticks(low, high, 5).map(v => `<line class="grid" x1="${left}" x2="${right}" y1="${y(v)}" y2="${y(v)}"/>` +
        `<text x="${left - 7}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join('') +
      ticks(0, far, 6).map(v => `<text x="${x(v)}" y="${bottom + 17}" text-anchor="middle">${v.toLocaleString('en')}</text>`).join('') +
      `<text x="${right}" y="${bottom + 34}" text-anchor="end">${by === 'epoch' ? 'epochs' : 'seconds of training'}</text>` +
      shown.map(d => `<g class="curve-${d.i}"><path class="band" d="M${line(d.x, d.high)}L${line([...d.x].reverse(), [...d.low].reverse())}z"/>` +
        `<path class="mean" d="M${line(d.x, d.mean)}"/>` +
        d.x.map((v, e) => `<circle cx="${x(v)}" cy="${y(d.mean[e])}" r="3"/>`).join('') + '</g>').join('')
    said.innerHTML = shown.map(d => {
      const e = d.x.length - 1, digits = times === 100 ? 1 : 3, tell = v => v.toFixed(digits)
      const spread = d.low[e] < d.high[e] ? ` (seeds ${tell(d.low[e])} to ${tell(d.high[e])})` : ''
      const after = by === 'epoch' ? `${d.x[e]} epochs` : `${Math.round(d.x[e]).toLocaleString('en')} s`
      return `<li class="curve-${d.i}"><strong>${escape(d.name)}</strong>: ${tell(d.mean[e])}${times === 100 ? '%' : ''}${spread} after ${after}</li>`
    }).join('')
  }

  root.addEventListener('change', draw)
  root.hidden = false
  draw()
})()
