// Draws the results as small bar charts in one SVG for the README. It is legible in light and in dark mode.

import { BASE, type Column, type Results, figure, ratio } from './results.ts'
import { round } from './report.ts'

/** Ids of the peers that get a bar. */
const SHOWN = ['plugin', 'net', 'http', 'fastify', 'ws', 'http2', 'go-tutorial', 'go-best', 'go-full-duplex', 'hyper']

const WIDTH = 440
const LABEL = 175
const BAR = WIDTH - LABEL - 70
const LINE = 17
const TITLE = 30
const GAP = 24
const PANELS_PER_ROW = 2
const INDENT = 8

const STYLE = `
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 13px }
rect { fill: #8c959f }
.plugin rect { fill: #1a7f37 }
.plugin text { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  rect { fill: #6e7681 }
  .plugin rect { fill: #3fb950 }
}`

interface Bar {
  id: string
  label: string
  value: number
  text: string
}

export function chart (results: Results): string {
  const panels = results.columns.filter(({ table }) => table === results.columns[0].table).map((column) => panel(column, results))
  const rows = Math.ceil(panels.length / PANELS_PER_ROW)
  const height = Math.max(...panels.map(({ height }) => height))
  const placed = panels.map(({ svg }, i) => `<g transform="translate(${(i % PANELS_PER_ROW) * (WIDTH + GAP)} ${Math.floor(i / PANELS_PER_ROW) * (height + GAP)})">${svg}</g>`)
  const size = { width: PANELS_PER_ROW * (WIDTH + GAP) - GAP, height: rows * (height + GAP) }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" width="${size.width}" height="${size.height}">
<style>${STYLE}</style>
${placed.join('\n')}
</svg>
`
}

function panel (column: Column, { peers }: Results): { svg: string, height: number } {
  const bars = SHOWN.flatMap((id) => bar(column, id, peers.find((peer) => peer.id === id)?.label))
  bars.sort((a, b) => column.rate ? b.value - a.value : a.value - b.value)
  const max = Math.max(...bars.map(({ value }) => value))
  const title = column.rate ? `${column.title}, times Fastify streaming` : `${column.title}, ${column.unit} (less is better)`
  const lines = bars.map(({ id, label, value, text }, i) => {
    const y = TITLE + i * LINE
    const width = Math.max(1, value / max * BAR)
    return `<g${id === 'plugin' ? ' class="plugin"' : ''}><text x="${LABEL - 8}" y="${y + 12}" text-anchor="end">${escape(label)}</text>` +
      `<rect x="${LABEL}" y="${y + 2}" width="${width.toFixed(1)}" height="${LINE - 5}" rx="2"/><text x="${(LABEL + width + 6).toFixed(1)}" y="${y + 12}">${text}</text></g>`
  })
  return { svg: `<text class="title" x="${INDENT}" y="16">${escape(title)}</text>\n${lines.join('\n')}`, height: TITLE + bars.length * LINE }
}

function bar (column: Column, id: string, label = id): Bar[] {
  const value = column.rate ? ratio(column, id, BASE) : figure(column, id)
  if (value === null) return []
  return [{ id, label: label.replaceAll('`', ''), value, text: round(value) }]
}

function escape (text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
