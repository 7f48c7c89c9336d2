/* Two nets that play: digits drawn by the reader, and photographs. What they share, the panel, shows what a net answers,
what it has in each of its parts, where it looks, and lets its blocks be taken apart. Computing is net.js's. */
(() => {
const {make, number, percent, paint, speaker} = widget

// Maps of a part, the strongest 16 in their order, in two canvases of eight side by side
const CELL = 64, GAP = 6, one = make('canvas')
function drawMaps(canvases, x) {
  const means = new Float64Array(x.c)
  for (let i = 0; i < x.data.length; i++) means[i%x.c] += x.data[i]
  const chosen = [...means.keys()].sort((a, b) => means[b] - means[a]).slice(0, 16).sort((a, b) => a - b)
  const high = Float32Array.from(x.data).sort()[Math.floor(.998*(x.data.length - 1))]  // a corner may be far above all else
  canvases.forEach((canvas, half) => {
    canvas.width = 8*CELL + 7*GAP
    canvas.height = CELL
    canvas.hidden = chosen.length <= 8*half
    const ctx = canvas.getContext('2d')
    ctx.imageSmoothingEnabled = false
    chosen.slice(8*half, 8*half + 8).forEach((k, i) => {
      paint(one, Array.from({length: x.h*x.w}, (_, at) => x.data[at*x.c + k]), x.w, x.h, 0, high)
      ctx.drawImage(one, i*(CELL + GAP), 0, CELL, CELL)
    })
  })
}

// Numbers on a coarse grid as an orange veil over a picture of any size
function veil(canvas, picture, heat) {
  const side = 224, ctx = canvas.getContext('2d'), small = make('canvas'), most = heat.data.reduce((a, b) => Math.max(a, b), 0)
  canvas.width = canvas.height = side
  ctx.imageSmoothingEnabled = picture.width > 32
  ctx.filter = 'grayscale(1)'
  ctx.drawImage(picture, 0, 0, side, side)
  ctx.filter = 'none'
  small.width = heat.w
  small.height = heat.h
  const image = new ImageData(heat.w, heat.h)
  heat.data.forEach((v, i) => image.data.set([255, 140, 0, 200*(v/(most || 1))**1.5], 4*i))
  small.getContext('2d').putImageData(image, 0, 0)
  ctx.imageSmoothingEnabled = true
  ctx.drawImage(small, 0, 0, side, side)
}

function panel(net, id, says, most = net.classes.length) {
  const edit = {out: new Set(), alone: new Set()}, voice = speaker()
  const head = make('p', {class: 'play-answer'}), bars = make('ol', {class: 'play-bars'}), time = make('p', {class: 'play-note'})
  const heat = make('canvas', {role: 'img', 'aria-label': 'Where the evidence lies'})
  const choose = make('select', {id: `${id}-class`, class: 'form-select', change: () => look()},
    make('option', {value: ''}, 'its answer'), ...net.classes.map((c, i) => make('option', {value: i}, c)))
  const rows = make('div', {class: 'play-parts'})
  const strips = {}
  let again = () => {}, last

  function look() {
    if (!last) return
    const label = choose.value === '' ? last.best : Number(choose.value)
    veil(heat, last.picture, classMap(net, last.maps, label))
    heat.setAttribute('aria-label', `Where the evidence for ${net.classes[label]} lies, in orange over the picture`)
  }

  // What a run has found: the answer, the maps, the time
  function show(maps, picture, ms, words = says) {
    const p = softmax(maps.at(-1).data), order = [...p.keys()].sort((a, b) => p[b] - p[a]), best = order[0]
    last = {maps, picture, best}
    head.replaceChildren(words, make('strong', {}, net.classes[best]), `, ${percent(p[best])}`)
    const shown = most < p.length ? order.slice(0, most) : [...p.keys()]
    bars.replaceChildren(...shown.map(i => {
      const meter = make('span', {class: 'meter'})
      meter.style.width = `${100*p[i]}%`
      return make('li', i === best ? {class: 'best'} : {}, make('span', {class: 'name'}, net.classes[i]),
        make('span', {class: 'track', 'aria-hidden': true}, meter), make('span', {class: 'amount'}, percent(p[i])))
    }))
    look()
    for (const [part, x] of Object.entries(parts(net, maps))) {
      const n = Math.min(16, x.c), {shown, sizes} = strips[part] ??= {shown: [make('canvas'), make('canvas')], sizes: make('span')}
      if (!sizes.isConnected) rows.append(make('figure', {}, make('div', {class: 'play-maps', role: 'img',
        'aria-label': `${n} of the ${x.c} maps of ${part}`}, ...shown), make('figcaption', {}, make('b', {}, part), sizes)))
      sizes.textContent = ` ${n} of ${x.c} maps, ${x.w}x${x.h}`
      drawMaps(shown, x)
    }
    time.textContent = `Computed in ${number(ms)} ms, in this page.`
    voice.say(`${net.classes[best]}, ${percent(p[best])}`)
  }

  // Two buttons for each block, one of which may be off: its convolutions (then it is out), or its skip (they stand alone)
  const off = () => edit.out.size + edit.alone.size
  const told = make('p', {class: 'play-note'})
  const toggles = net.blocks.flatMap(block => [['skip', 'alone', 'out'], ['convs', 'out', 'alone']].map(([text, mine, other]) => ({
    block, state: mine, button: make('button', {type: 'button', class: `play-${text}`, 'aria-label': `${text} of ${block}`, click() {
      edit[other].delete(block)
      if (!edit[mine].delete(block)) edit[mine].add(block)
      changed()
    }}, text)})))
  function changed() {
    for (const {block, state, button} of toggles) button.setAttribute('aria-pressed', !edit[state].has(block))
    const words = [edit.out.size && `${edit.out.size} taken out`, edit.alone.size && `${edit.alone.size} without skip`]
    told.textContent = off() ? `Of ${net.blocks.length} blocks: ${words.filter(Boolean).join(', ')}.` : 'All blocks are whole.'
    again()
  }
  const set = state => {
    edit.out.clear()
    edit.alone = new Set(state ? net.blocks : [])
    changed()
  }
  const button = (text, click) => make('button', {type: 'button', class: 'play-button', click}, text)
  const blocks = make('div', {class: 'play-blocks', role: 'group', 'aria-labelledby': `${id}-apart`},
    make('h3', {id: `${id}-apart`}, 'Take it apart'),
    make('p', {class: 'play-note'}, 'Each block adds its convolutions to its skip connection. Switch one of the two off, and see '
      + 'what survives.'),
    make('div', {class: 'play-stack'}, ...net.blocks.map(block => make('div', {class: 'play-block', role: 'group', 'aria-label': block},
      ...toggles.filter(t => t.block === block).map(t => t.button), make('span', {}, block)))),
    make('p', {class: 'play-buttons'}, button('All whole', () => set(false)), button('No skips at all', () => set(true))), told)
  changed()
  const answer = make('div', {class: 'play-says', role: 'group', 'aria-label': 'Answer'}, head, bars, time)
  const where = make('div', {class: 'play-where', role: 'group', 'aria-label': 'Where it looks'}, heat,
    make('p', {}, make('label', {for: choose.id}, 'Evidence for'), choose))
  const seen = make('div', {}, make('h3', {}, 'What each part makes of it'), rows)
  return {answer, where, seen, blocks, voice, edit, show, set again(f) { again = f }}
}

// The digits

const START = [[[30, 25], [50, 12], [70, 25], [66, 42], [46, 50], [68, 58], [72, 76], [52, 90], [28, 78]]]  // a three
function smooth(points) {  // through the middles of its corners, so that a sample does not look like a fence
  for (let n = 0; n < 3; n++) points = [points[0], ...points.slice(1).flatMap(([x, y], i) => {
    const [a, b] = points[i]
    return [[.75*a + .25*x, .75*b + .25*y], [.25*a + .75*x, .25*b + .75*y]]
  }), points.at(-1)]
  return points
}

function digits(root, net) {
  const SIDE = 100, pad = make('canvas', {width: 400, height: 400, tabindex: 0, role: 'application', class: 'play-pad',
    'aria-label': 'Drawing pad', 'aria-describedby': 'play-keys'})
  const small = make('canvas', {role: 'img', 'aria-label': 'The drawing as 8 by 8 numbers, as the net is shown it', class: 'pixels'})
  const view = panel(net, 'digit', 'It reads ')
  let side = net.size, strokes = START.map(smooth), own = false, cursor = [50, 50], down = false, waiting = false

  function sketch() {
    const ctx = pad.getContext('2d'), scale = pad.width/SIDE, style = getComputedStyle(pad)
    ctx.setTransform(scale, 0, 0, scale, 0, 0)
    ctx.clearRect(0, 0, SIDE, SIDE)
    Object.assign(ctx, {lineWidth: 6, lineCap: 'round', lineJoin: 'round', strokeStyle: style.color})
    for (const stroke of strokes) {
      ctx.beginPath()
      for (const [x, y] of stroke.length > 1 ? stroke : [stroke[0], stroke[0]]) ctx.lineTo(x, y)
      ctx.stroke()
    }
    if (document.activeElement === pad && pad.matches(':focus-visible')) {
      ctx.beginPath()
      ctx.arc(...cursor, down ? 4 : 2.5, 0, 7)
      ctx.fillStyle = style.getPropertyValue('--pst-color-accent')
      ctx.fill()
    }
  }
  function compute() {
    waiting = false
    sketch()
    const grid = strokes.length ? digitOf(strokes) : new Uint8Array(64), began = performance.now()
    paint(small, grid, 8, 8, 0, 16, v => Array(3).fill(Math.round(255*v)))
    const x = pixels(grid)
    const maps = run(net, x, view.edit), ms = performance.now() - began
    view.show(maps, small, ms, strokes.length ? undefined : 'Of an empty pad it says ')
  }
  const pixels = grid => {
    const big = enlarged(grid, side)
    return {c: 3, h: side, w: side,
            data: Float32Array.from({length: 3*big.length}, (_, i) => (big[Math.floor(i/3)]/255 - net.mean[i%3])/net.sd[i%3])}
  }
  const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(compute) } }
  const again = () => { soon(); score.textContent = '' }
  view.again = again
  const begin = point => {
    if (!own) strokes = []
    own = true
    strokes.push([point])
    soon()
  }
  const place = event => {
    const box = pad.getBoundingClientRect()
    return [SIDE*(event.clientX - box.left)/box.width, SIDE*(event.clientY - box.top)/box.height]
  }
  let drawing = false
  pad.addEventListener('pointerdown', event => {
    if (event.button) return
    pad.setPointerCapture(event.pointerId)
    drawing = true
    begin(place(event))
  })
  pad.addEventListener('pointermove', event => {
    if (!drawing) return
    const all = event.getCoalescedEvents?.() ?? []
    strokes.at(-1).push(...(all.length ? all : [event]).map(place))
    soon()
  })
  for (const end of ['pointerup', 'pointercancel']) pad.addEventListener(end, () => { drawing = false })
  const clear = () => { strokes = []; own = true; down = false; soon() }
  const undo = () => { strokes.pop(); own = true; down = false; soon() }
  pad.addEventListener('keydown', event => {
    const [dx, dy] = {ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4]}[event.key] ?? [0, 0]
    if (dx || dy) {
      cursor = [Math.min(96, Math.max(4, cursor[0] + dx)), Math.min(96, Math.max(4, cursor[1] + dy))]
      if (down) strokes.at(-1).push(cursor)
    } else if (event.key === ' ') {
      down = !down
      if (down) begin(cursor)
      view.voice.say(down ? 'pen down' : 'pen up', 0)
    } else if (event.key === 'Delete' || event.key === 'Backspace') clear()
    else return
    event.preventDefault()
    soon()
  })
  for (const kind of ['focus', 'blur']) pad.addEventListener(kind, sketch)
  new MutationObserver(sketch).observe(document.documentElement, {attributeFilter: ['data-theme']})

  // How many of the digits that it never saw it reads, as it stands; a few at a time, so that the page does not freeze
  const held = JSON.parse(document.getElementById('play-held').textContent)
  const score = make('p', {class: 'play-note', role: 'status'})
  async function test() {
    const state = () => JSON.stringify([...view.edit.out, side, ...view.edit.alone]), asked = state()
    let right = 0
    exam.disabled = true
    for (const [i, [label, text]] of held.entries()) {
      const grid = Uint8Array.from(text, c => parseInt(c, 17)), logits = run(net, pixels(grid), view.edit).at(-1).data
      right += logits.indexOf(Math.max(...logits)) === label
      if (i%10 === 9) {
        if (asked !== state()) break
        score.textContent = i + 1 < held.length ? `${right} of ${i + 1} ...` : `It reads ${right} of ${held.length} digits that it never saw.`
        await new Promise(resolve => setTimeout(resolve))
      }
    }
    exam.disabled = false
  }
  const button = (text, click) => make('button', {type: 'button', class: 'play-button', click}, text)
  const exam = button(`Read ${held.length} digits that it never saw`, test)
  const sides = make('select', {id: 'digit-side', class: 'form-select', change() { side = Number(sides.value); again() }},
    ...[64, 96, 127, 128, 129, 136, 160].map(n => make('option', {value: n, selected: n === side}, n)))
  view.blocks.append(make('p', {class: 'play-buttons'}, make('label', {for: 'digit-side'}, 'Enlarged to, pixels'), sides, exam), score)
  const shown = make('figure', {class: 'play-shown'}, small, make('figcaption', {}, 'what the net is shown: 8x8 numbers'))
  root.replaceChildren(
    make('div', {class: 'play-top'},
      make('div', {class: 'play-draw', role: 'group', 'aria-label': 'Draw'}, pad,
        make('p', {class: 'play-buttons'}, button('Clear', clear), button('Undo', undo)),
        make('p', {class: 'play-note', id: 'play-keys'},
          'Finger or mouse draws. Keys: arrows move the pen, space puts it down and lifts it, Delete clears.')),
      view.answer, make('div', {class: 'play-side'}, shown, view.where)),
    view.seen, view.blocks, view.voice.element)
  compute()
}

// Photographs

function photos(root) {
  const MEGABYTES = root.dataset.megabytes, note = make('p', {class: 'play-note', role: 'status'})
  const bar = make('progress', {max: 1, value: 0, 'aria-label': 'Progress', hidden: true})
  const start = make('button', {type: 'button', class: 'play-button main', click: load}, `Load the net (${MEGABYTES} MB)`)
  root.replaceChildren(make('p', {class: 'play-buttons'}, start), bar, note)

  // A script, since a page read from disk may not fetch; a script does not tell how far it is, so the bar only moves
  function load() {
    start.disabled = true
    bar.hidden = false
    bar.removeAttribute('value')
    note.textContent = 'Loading ...'
    const script = make('script', {src: root.dataset.net})
    script.onload = () => { bar.hidden = true; start.parentElement.remove(); note.textContent = ''; ready(loadNet(pageNets.imagenette)) }
    script.onerror = () => { bar.hidden = true; start.disabled = false; note.textContent = 'It did not come. Try once more.' }
    document.head.append(script)
  }

  function ready(net) {
    const view = panel(net, 'photo', 'It says ', 5), photo = make('canvas', {width: net.size, height: net.size, role: 'img',
      'aria-label': 'The photograph as the net is shown it', class: 'play-photo'})
    let turn = 0, has = false
    // The middle of the photograph, as in validation: its shorter side becomes presize, of that the middle, of that the size
    function take(image, what) {
      const side = Math.min(image.width, image.height)*net.valid_scale, ctx = photo.getContext('2d', {willReadFrequently: true})
      ctx.imageSmoothingQuality = 'high'
      ctx.fillStyle = 'white'
      ctx.fillRect(0, 0, net.size, net.size)
      ctx.drawImage(image, (image.width - side)/2, (image.height - side)/2, side, side, 0, 0, net.size, net.size)
      photo.setAttribute('aria-label', `${what}, as the net is shown it`)
      has = true
      compute()
    }
    async function compute() {
      if (!has) return
      const mine = ++turn, all = steps(net, imageOf(photo, net), view.edit)
      let ms = 0, maps, paused = performance.now()
      bar.hidden = false
      for (;;) {
        const began = performance.now(), {value} = all.next()
        ms += performance.now() - began
        maps = value
        if (maps.length === net.nodes.length) break
        if (performance.now() - paused > 40) {
          bar.value = maps.length/net.nodes.length
          await new Promise(resolve => setTimeout(resolve))
          if (mine !== turn) return  // another photograph came
          paused = performance.now()
        }
      }
      bar.hidden = true
      view.show(maps, photo, ms)
      for (const hidden of root.querySelectorAll('[hidden]')) if (hidden !== bar) hidden.hidden = false
    }
    view.again = compute
    async function read(file) {
      if (!file) return
      note.textContent = ''
      try { take(await createImageBitmap(file), file.name) }
      catch { note.textContent = `${file.name} is no photograph that this browser can read; take a JPEG or a PNG.` }
    }
    const file = make('input', {type: 'file', accept: 'image/*', id: 'photo-file', class: 'visually-hidden', change: () => read(file.files[0])})
    const sample = name => make('button', {type: 'button', class: 'play-button', click() {
      const image = new Image()
      image.onload = () => take(image, name)
      image.src = pageNets.photos[name]
    }}, `The ${name}`)
    for (const kind of ['dragover', 'drop']) root.addEventListener(kind, event => {
      event.preventDefault()
      if (kind === 'drop') read(event.dataTransfer.files[0])
    })
    const controls = make('p', {class: 'play-buttons'}, file, make('label', {for: 'photo-file', class: 'play-button main'},
      'A photograph of yours'), ...Object.keys(pageNets.photos).map(sample))
    const hint = make('p', {class: 'play-note'}, 'Or drop one here. It stays in this page: nothing is sent anywhere.')
    const top = make('div', {class: 'play-top'}, make('div', {class: 'play-draw', role: 'group', 'aria-label': 'Photograph'}, photo),
      view.answer, make('div', {class: 'play-side'}, view.where))
    for (const part of [top, view.seen, view.blocks]) part.hidden = true
    root.prepend(controls, hint)
    root.append(top, view.seen, view.blocks, view.voice.element)
    file.focus()
  }
}

digits(document.getElementById('play-digits'), loadNet(pageNets.digits))
photos(document.getElementById('play-photos'))
})()
