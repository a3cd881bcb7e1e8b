// Draws the pictures of the documentation from facts in the code: the table of an exchange's life, and the defaults of options.
// `npm run pictures` writes them. They are readable in light and in dark mode.

import { type Life, TABLE } from '../../lib/exchange/life.ts'
import { DEFAULT_OPTIONS } from '../../lib/options.ts'

const STYLE = `
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.small { font-size: 11.5px }
.dim { fill: #59636e }
.box { fill: #f6f8fa; stroke: #8c959f }
.line { stroke: #8c959f; stroke-width: 1 }
.arrow { stroke: #59636e; stroke-width: 1.2 }
.head { fill: #59636e }
.mark { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 4 }
.warn { fill: #cf222e }
.up { fill: #0969da }
.down { fill: #1a7f37 }
.rest { opacity: .35 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .dim { fill: #9198a1 }
  .box { fill: #151b23; stroke: #6e7681 }
  .arrow { stroke: #9198a1 }
  .head { fill: #9198a1 }
  .mark { stroke: #ff7b72 }
  .warn { fill: #ff7b72 }
  .up { fill: #58a6ff }
  .down { fill: #3fb950 }
}`

const WIDTH = 900

export function svg (height: number, parts: string[], width = WIDTH): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">\n<style>${STYLE}</style>\n${parts.join('\n')}\n</svg>\n`
}

export function text (x: number, y: number, content: string, { classes = '', anchor = 'start' } = {}): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" class="${classes}">${content}</text>`
}

// The life of an exchange: states side by side, and below them each event that leads from one to another.

const COLUMN = { first: 92, step: 168, width: 128, height: 28 }
const ROW = 26

interface Part { part: keyof Life, title: string, states: string[] }

const PARTS: Part[] = [
  { part: 'request', title: 'request', states: ['open', 'complete', 'stopped', 'failed'] },
  { part: 'response', title: 'response', states: ['from Fastify', 'none', 'written', 'begun', 'complete'] },
  { part: 'connection', title: 'connection', states: ['held', 'ending', 'cut off', 'lost', 'detached'] }
]

interface Step { from: string, to: string, events: string[] }

/** The changes of one part of the life, each with the events that lead to it. */
export function stepsOf (part: keyof Life): Step[] {
  const steps: Step[] = []
  for (const [event, when, becomes] of TABLE) {
    const to = becomes[part]
    const from = when[part] ?? (part === 'connection' ? 'held' : undefined)
    if (to === undefined || from === undefined || from === to) continue
    const step = steps.find((step) => step.from === from && step.to === to)
    if (step === undefined) steps.push({ from, to, events: [event] })
    else if (!step.events.includes(event)) step.events.push(event)
  }
  return steps
}

export function life (): string {
  const parts: string[] = []
  let y = 10
  for (const { part, title, states } of PARTS) {
    const steps = stepsOf(part)
    const x = (state: string): number => COLUMN.first + states.indexOf(state) * COLUMN.step
    const bottom = y + COLUMN.height + steps.length * ROW + 8
    parts.push(text(8, y + 19, title, { classes: 'title' }))
    for (const state of states) {
      parts.push(`<line class="line" x1="${x(state) + 64}" y1="${y + COLUMN.height}" x2="${x(state) + 64}" y2="${bottom}"/>`)
      parts.push(`<rect class="box" x="${x(state)}" y="${y}" width="${COLUMN.width}" height="${COLUMN.height}" rx="5"/>`)
      parts.push(text(x(state) + 64, y + 19, state, { anchor: 'middle' }))
    }
    if (part === 'response') {
      const noReturn = x('begun') - (COLUMN.step - COLUMN.width) / 2
      parts.push(`<line class="mark" x1="${noReturn}" y1="${y}" x2="${noReturn}" y2="${bottom + 4}"/>`)
      parts.push(text(noReturn + 6, bottom + 14, 'the point of no return: the first byte', { classes: 'small warn' }))
    }
    steps.forEach(({ from, to, events }, index) => parts.push(arrow(x(from) + 64, x(to) + 64, y + COLUMN.height + 20 + index * ROW, events.join(' · '))))
    y = bottom + 34
  }
  return svg(y - 14, parts)
}

function arrow (from: number, to: number, y: number, label: string): string {
  const way = Math.sign(to - from)
  return `<line class="arrow" x1="${from}" y1="${y}" x2="${to - way * 6}" y2="${y}"/><path class="head" d="M${to} ${y}l${-way * 8} -4v8z"/>` +
    text(Math.min(from, to) + 8, y - 4, label, { classes: 'small' })
}

// Both bodies on one time line. What is dropped, or never arrives, is pale.

interface Bar { direction: 'up' | 'down', from: number, to: number, rest?: number }
interface Panel { title: string, bars: Bar[], marks?: [at: number, label: string][], notes: string[] }

const SCALE = { left: 110, width: 760 }

function at (time: number): number {
  return SCALE.left + time / 100 * SCALE.width
}

function panels (list: Panel[]): string {
  const parts: string[] = []
  let y = 0
  for (const { title, bars, marks = [], notes } of list) {
    parts.push(text(8, y + 20, title, { classes: 'title' }))
    const top = y + (marks.length > 0 ? 52 : 34)
    bars.forEach(({ direction, from, to, rest }, index) => {
      const line = top + (direction === 'up' ? 0 : 26)
      const isFirst = bars.findIndex((bar) => bar.direction === direction) === index
      if (isFirst) parts.push(text(SCALE.left - 10, line + 14, direction === 'up' ? 'request' : 'response', { anchor: 'end' }))
      parts.push(`<rect class="${direction}" x="${at(from)}" y="${line}" width="${at(to) - at(from)}" height="18" rx="3"/>`)
      if (rest !== undefined) parts.push(`<rect class="${direction} rest" x="${at(to)}" y="${line}" width="${at(rest) - at(to)}" height="18" rx="3"/>`)
    })
    for (const [time, label] of marks) {
      parts.push(`<line class="mark" x1="${at(time)}" y1="${top - 8}" x2="${at(time)}" y2="${top + 52}"/>`)
      parts.push(text(at(time), top - 12, label, { classes: 'small warn', anchor: time > 80 ? 'end' : 'middle' }))
    }
    notes.forEach((note, index) => parts.push(text(SCALE.left, top + 66 + index * 18, note, { classes: 'small dim' })))
    y = top + 66 + notes.length * 18
  }
  return svg(y, parts)
}

export function bodies (): string {
  const words = [0, 1, 2, 3, 4, 5].map((word) => word * 16)
  return panels([
    {
      title: 'An ordinary route',
      bars: [{ direction: 'up', from: 0, to: 55 }, { direction: 'down', from: 57, to: 100 }],
      notes: ['The handler runs when the whole body has arrived, and then answers.']
    },
    {
      title: 'A duplex route',
      bars: words.flatMap((word): Bar[] => [{ direction: 'up', from: word, to: word + 10 }, { direction: 'down', from: word + 5, to: word + 15 }]),
      notes: ['The handler runs when the head has arrived. It reads and writes at the same time.']
    }
  ])
}

function time (ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000} s` : `${ms} ms`
}

export function ends (): string {
  const { closeGrace, drainTimeout, drainLimit } = DEFAULT_OPTIONS
  return panels([
    {
      title: 'The response ends early',
      bars: [{ direction: 'up', from: 0, to: 45, rest: 90 }, { direction: 'down', from: 8, to: 45 }],
      marks: [[45, 'end()']],
      notes: [
        'Code that still reads the request may read to its end. If nothing reads it, the rest is dropped,',
        `and the connection is kept if that takes no longer than drainTimeout (${time(drainTimeout)}). drainLimit is ${drainLimit / 1024} KiB.`
      ]
    },
    {
      title: 'The client leaves',
      bars: [{ direction: 'up', from: 0, to: 35 }, { direction: 'down', from: 8, to: 55, rest: 100 }],
      marks: [[55, 'the connection closes']],
      notes: ['request.signal aborts, and the stream fails with FST_ERR_DUPLEX_ABORTED. The log says "stream closed prematurely".']
    },
    {
      title: 'The app closes',
      bars: [{ direction: 'up', from: 0, to: 40, rest: 85 }, { direction: 'down', from: 8, to: 70, rest: 85 }],
      marks: [[40, "app.close(): 'shutdown'"], [85, 'closeGrace is over']],
      notes: [
        `request.signal aborts. The handler has closeGrace (${time(closeGrace)}) for its last words. What is open then is answered with 503,`,
        'or cut off if the response has begun.'
      ]
    }
  ])
}

export const PICTURES: Record<string, () => string> = { life, bodies, ends }
