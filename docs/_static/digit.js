/* A drawn digit as the net's own digits were made (Alpaydin and Kaynak, 1998): cut to its box and made 32 high and some 24
wide, in black and white; of each 4x4 the inked ones are counted, which gives 8x8 numbers from 0 to 16. The pen is as wide as
theirs: a digit has 19.5 of the 64 places' ink. `strokes` are lists of points [x, y]. */
function digitOf(strokes, pen = 2.2, wide = 24) {
  const points = strokes.flat(), xs = points.map(p => p[0]), ys = points.map(p => p[1])
  const left = Math.min(...xs), top = Math.min(...ys), width = Math.max(...xs) - left, height = Math.max(...ys) - top
  const scale = (32 - 2*pen)/Math.max(height, width, 1e-6), stretch = Math.min(1.7, Math.max(.8, wide/(width*scale + 2*pen)))
  const at = ([x, y]) => [(x - left - width/2)*scale, (y - top - height/2)*scale], grid = new Uint8Array(64)
  const lines = strokes.map(s => s.map(at)).flatMap(s => s.length > 1 ? s.slice(1).map((p, i) => [s[i], p]) : [[s[0], s[0]]])
  for (let y = 0; y < 32; y++)
    for (let x = 0; x < 32; x++)
      if (lines.some(line => distance((x - 15.5)/stretch, y - 15.5, ...line) <= pen)) grid[8*(y >> 2) + (x >> 2)]++
  return grid
}

// Of a point from a line between two others
function distance(x, y, [ax, ay], [bx, by]) {
  const dx = bx - ax, dy = by - ay, length = dx*dx + dy*dy
  const t = length && Math.min(1, Math.max(0, ((x - ax)*dx + (y - ay)*dy)/length))
  return Math.hypot(x - ax - t*dx, y - ay - t*dy)
}

// 8x8 numbers from 0 to 16 as an image of bytes `side` wide, as Pillow enlarges them
function enlarged(grid, side) {
  const out = new Float32Array(side*side), bytes = Array.from(grid, v => Math.floor(v*255/16))
  const place = i => {
    const at = Math.min(7, Math.max(0, (i + .5)*8/side - .5)), low = Math.floor(at)
    return [low, Math.min(7, low + 1), at - low]
  }
  for (let y = 0; y < side; y++) {
    const [top, below, v] = place(y)
    for (let x = 0; x < side; x++) {
      const [left, right, u] = place(x), row = r => bytes[8*r + left]*(1 - u) + bytes[8*r + right]*u
      out[y*side + x] = Math.round(row(top)*(1 - v) + row(below)*v)
    }
  }
  return out
}
