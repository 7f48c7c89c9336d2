// What the things that play share: elements in a line, colours for numbers, words for a screen reader
const widget = {
  make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag)
    for (const [k, v] of Object.entries(attributes))
      if (typeof v === 'function') element.addEventListener(k, v)
      else if (v !== false && v != null) element.setAttribute(k, v === true ? '' : v)
    element.append(...children)
    return element
  },
  number: (n, digits = 0) => n.toLocaleString('en', {maximumFractionDigits: digits, minimumFractionDigits: digits}),
  percent: p => p > .9995 ? '>99.9%' : p < .0005 ? '<0.1%' : p < .1 || p > .9 ? `${(100*p).toFixed(1)}%` : `${Math.round(100*p)}%`,
  // From 0 to 1: viridis, which the colour-blind read as well
  colour(v) {
    const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]
    const at = 4*Math.min(1, Math.max(0, v)), i = Math.min(3, Math.floor(at)), t = at - i
    return stops[i].map((a, k) => Math.round(a + t*(stops[i + 1][k] - a)))
  },
  // Numbers in rows as pixels of a canvas
  paint(canvas, values, w, h, low = Math.min(...values), high = Math.max(...values), colour = widget.colour) {
    canvas.width = w
    canvas.height = h
    const image = new ImageData(w, h)
    values.forEach((v, i) => image.data.set([...colour((v - low)/(high - low || 1)), 255], 4*i))
    canvas.getContext('2d').putImageData(image, 0, 0)
    return canvas
  },
  // Words that are read out once nothing has changed for a while
  speaker() {
    const element = widget.make('p', {class: 'visually-hidden', role: 'status'})
    let timer
    return {element, say(text, wait = 700) {
      clearTimeout(timer)
      timer = setTimeout(() => { if (element.textContent !== text) element.textContent = text }, wait)
    }}
  },
}
