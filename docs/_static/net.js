/* A net in the page: what a ResNet computes, in plain JavaScript, and what one may take out of it.

A net comes from tools/page_net.py: a list of nodes, each with the places of the nodes it is computed `from`, norms folded into
the convolutions, weights in 8 bits with a step for each channel out. A map `{data, c, h, w}` keeps the channels of one place
together: the number of channel k in row y and column x is data[(y*w + x)*c + k]. There is one image at a time.

    const net = loadNet(pageNets.digits)
    const maps = run(net, imageOf(canvas, net))       // one map for each node; the last holds the logits
    softmax(maps.at(-1).data)
    run(net, x, {out: new Set(['group3.1'])})         // a block taken out: what comes by the shortcut goes on alone
    run(net, x, {alone: new Set(['group3.1'])})       // its shortcut taken away
    classMap(net, maps, 3)                            // where the evidence for class 3 lies: Grad-CAM at the last group */

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0))

// Weights from their 8 bits, four channels out at a time, so the last of them may be filled up with zeros
function loadNet({nodes, weights, numbers, ...about}) {
  const bytes = new Int8Array(bytesOf(weights).buffer), floats = new Float32Array(bytesOf(numbers).buffer)
  let at = 0, n = 0
  nodes = nodes.map(node => {
    if (!node.nf) return node
    const K = node.ni*(node.ks ?? 1)**2, weight = new Float32Array(Math.ceil(node.nf/4)*4*K)
    for (let o = 0; o < node.nf; o++)
      for (let k = 0; k < K; k++) weight[o*K + k] = bytes[at + o*K + k]*floats[n + o]
    const bias = floats.subarray(n + node.nf, n + 2*node.nf)
    at += node.nf*K
    n += 2*node.nf
    return {...node, weight, bias}
  })
  const blocks = nodes.filter(node => node.op === 'add').map(node => node.name)
  return {...about, nodes, blocks}
}

const empty = (c, h, w) => ({data: new Float32Array(c*h*w), c, h, w})
const side = (n, {ks, stride, pad, ceil}) => {
  const steps = (n + 2*pad - ks)/stride, whole = (ceil ? Math.ceil : Math.floor)(steps)
  return (ceil && whole*stride >= n + pad ? whole - 1 : whole) + 1  // no window may begin outside the image
}

// For each place of the kernel all numbers under it in one row; outside the image they are 0
function patches(x, node) {
  const {ks, stride, pad} = node, h = side(x.h, node), w = side(x.w, node), K = ks*ks*x.c
  if (ks === 1 && stride === 1 && !pad) return {rows: x.data, h, w, K}
  const rows = new Float32Array(h*w*K)
  for (let y = 0; y < h; y++)
    for (let i = 0; i < ks; i++) {
      const from = y*stride + i - pad
      if (from < 0 || from >= x.h) continue
      for (let c = 0; c < w; c++)
        for (let j = 0; j < ks; j++) {
          const column = c*stride + j - pad
          if (column < 0 || column >= x.w) continue
          const at = (from*x.w + column)*x.c, to = (y*w + c)*K + (i*ks + j)*x.c
          for (let k = 0; k < x.c; k++) rows[to + k] = x.data[at + k]
        }
    }
  return {rows, h, w, K}
}

// A convolution is a matrix product: each row of numbers with each channel's weights. Two places and four channels at a time,
// so that six numbers read make eight products; that is three times as fast as one by one
function conv(x, node) {
  const {rows, h, w, K} = patches(x, {ks: 1, stride: 1, pad: 0, ...node}), {weight, bias, nf} = node, places = h*w
  const out = empty(nf, h, w), sums = new Float64Array(8)
  for (let p = 0; p < places; p += 2)
    for (let o = 0; o < nf; o += 4) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0
      const a = p*K, b = p + 1 < places ? a + K : a, c = o*K, d = c + K, e = d + K, f = e + K
      for (let k = 0; k < K; k++) {
        const u = rows[a + k], v = rows[b + k], w0 = weight[c + k], w1 = weight[d + k], w2 = weight[e + k], w3 = weight[f + k]
        s0 += u*w0; s1 += u*w1; s2 += u*w2; s3 += u*w3
        t0 += v*w0; t1 += v*w1; t2 += v*w2; t3 += v*w3
      }
      sums[0] = s0; sums[1] = s1; sums[2] = s2; sums[3] = s3; sums[4] = t0; sums[5] = t1; sums[6] = t2; sums[7] = t3
      for (let q = 0; q < 2 && p + q < places; q++)
        for (let i = 0; i < 4 && o + i < nf; i++) out.data[(p + q)*nf + o + i] = sums[4*q + i] + bias[o + i]
    }
  return out
}

function pool(x, node) {
  const {op, ks, stride, pad} = node, out = empty(x.c, side(x.h, node), side(x.w, node)), best = op === 'max'
  for (let y = 0; y < out.h; y++)
    for (let c = 0; c < out.w; c++) {
      const top = y*stride - pad, left = c*stride - pad
      // what ceil adds beyond the padding does not count, neither here nor in PyTorch
      const count = (Math.min(top + ks, x.h + pad) - top)*(Math.min(left + ks, x.w + pad) - left)
      for (let k = 0; k < x.c; k++) {
        let found = best ? -Infinity : 0
        for (let i = Math.max(top, 0); i < Math.min(top + ks, x.h); i++)
          for (let j = Math.max(left, 0); j < Math.min(left + ks, x.w); j++) {
            const v = x.data[(i*x.w + j)*x.c + k]
            found = best ? Math.max(found, v) : found + v/count
          }
        out.data[(y*out.w + c)*x.c + k] = found
      }
    }
  return out
}

function relu(x) {
  const out = empty(x.c, x.h, x.w)
  for (let i = 0; i < out.data.length; i++) out.data[i] = x.data[i] > 0 ? x.data[i] : 0
  return out
}
function sum(a, b) {
  const out = empty(a.c, a.h, a.w)
  for (let i = 0; i < out.data.length; i++) out.data[i] = a.data[i] + b.data[i]
  return out
}
function mean(x) {
  const out = empty(x.c, 1, 1)
  for (let i = 0; i < x.data.length; i++) out.data[i%x.c] += x.data[i]/(x.h*x.w)
  return out
}

// Node by node, with a pause after each for whoever does not want to wait for the last; `out` and `alone` name blocks
function* steps(net, image, {out = new Set(), alone = new Set()} = {}) {
  const maps = []
  for (const node of net.nodes) {
    const [a, b] = (node.from ?? []).map(i => maps[i])
    // the first of a block's sum are its convolutions, the second its shortcut
    const add = () => out.has(node.name) ? b : alone.has(node.name) ? a : sum(a, b)
    maps.push({image: () => image, conv: () => conv(a, node), linear: () => conv(a, node), max: () => pool(a, node),
      avg: () => pool(a, node), relu: () => relu(a), add, mean: () => mean(a)}[node.op]())
    yield maps
  }
  return maps
}
function run(net, image, edit) { for (const maps of steps(net, image, edit)) if (maps.length === net.nodes.length) return maps }

function softmax(logits) {
  const most = Math.max(...logits), e = Array.from(logits, v => Math.exp(v - most)), all = e.reduce((a, b) => a + b, 0)
  return e.map(v => v/all)
}

// The last linear layer is the gradient of its logits by the mean of each map, so the maps weighed by it are Grad-CAM
function classMap(net, maps, label) {
  const last = net.nodes.findLast(node => node.op === 'linear'), pooled = net.nodes[last.from[0]]
  const x = maps[pooled.from[0]], out = empty(1, x.h, x.w)
  for (let i = 0; i < x.data.length; i++)
    out.data[Math.floor(i/x.c)] += last.weight[label*x.c + i%x.c]*x.data[i]/(x.h*x.w)
  return relu(out)
}

// The maps at the end of each part: stem, group1, ...
function parts(net, maps) {
  const found = {}
  net.nodes.forEach((node, i) => { if (maps[i].h > 1 && node.op !== 'image') found[node.name.split('.')[0]] = maps[i] })
  return found
}

// Red, green and blue of a canvas as the net knows them: mean 0 and standard deviation 1
function imageOf(canvas, net) {
  const {data} = canvas.getContext('2d', {willReadFrequently: true}).getImageData(0, 0, canvas.width, canvas.height)
  const x = empty(3, canvas.height, canvas.width)
  for (let i = 0; i < x.data.length; i++) x.data[i] = (data[4*Math.floor(i/3) + i%3]/255 - net.mean[i%3])/net.sd[i%3]
  return x
}
