/* Lines over two axes, for what plays in the chapters: lineChart({lines: [{name, look, points: [[x, y], ...]}], x: {label, from, to, ticks},
y: {label, from, to, ticks, log}, mark}). `mark`: an x that stands out; ticks are numbers or [number, text]. */
const lineChart = ({lines, x, y, mark, label}) => {
  const SVG = 'http://www.w3.org/2000/svg', [left, right, top, bottom] = [52, 388, 10, 210]
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS(SVG, tag)
    for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v)
    element.append(...children)
    return element
  }
  const share = (v, {from, to, log}) => log ? Math.log(v/from)/Math.log(to/from) : (v - from)/(to - from)
  const across = v => left + (right - left)*share(v, x), down = v => bottom - (bottom - top)*Math.min(1, Math.max(-.02, share(v, y)))
  const pairs = ticks => ticks.map(t => Array.isArray(t) ? t : [t, String(t)])
  const parts = [
    ...pairs(y.ticks).flatMap(([v, text]) => [svg('line', {x1: left, x2: right, y1: down(v), y2: down(v), class: 'grid'}),
      svg('text', {x: left - 6, y: down(v) + 4, 'text-anchor': 'end'}, text)]),
    ...pairs(x.ticks).map(([v, text]) => svg('text', {x: across(v), y: bottom + 17, 'text-anchor': 'middle'}, text)),
    svg('text', {x: (left + right)/2, y: bottom + 35, 'text-anchor': 'middle'}, x.label)]
  if (mark != null) parts.push(svg('line', {x1: across(mark), x2: across(mark), y1: top, y2: bottom, class: 'mark'}))
  for (const {look, points} of lines) {
    const seen = points.filter(([, v]) => v > 0 || !y.log)
    if (seen.length) parts.push(svg('path', {class: `line ${look}`, d: `M${seen.map(([a, b]) => `${across(a).toFixed(1)} ${down(b).toFixed(1)}`).join('L')}`}))
    for (const [a, b] of seen) if (mark == null || a === mark) parts.push(svg('circle', {class: look, cx: across(a), cy: down(b), r: mark == null ? 2.5 : 4.5}))
  }
  return svg('svg', {viewBox: '0 0 400 250', class: 'chart', role: 'img', 'aria-label': label}, ...parts)
}
