// A recording of example/terminal.ts: what it shows in a conversation with `/upper` of example/server.ts. The picture plays the lines
// once. Only their times are made up.

import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { stripVTControlCharacters } from 'node:util'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { routes } from '../../example/server.ts'
import { converse } from '../../example/terminal.ts'
import { svg, text } from './draw.ts'

const COMMAND = 'npm run example:terminal'

const TYPED = ['first line', 'second line', 'that is all']

/** Runs the example, and types each line when the answer to the one before it has come. @returns the lines that it shows */
export async function record (): Promise<string[]> {
  const app = Fastify()
  await app.register(duplex)
  await app.register(routes)
  const keyboard = new PassThrough()
  const screen = new PassThrough({ encoding: 'utf8' })
  let seen = ''
  screen.on('data', (text) => { seen += stripVTControlCharacters(text) })
  try {
    const conversation = converse(`${await app.listen({ port: 0, host: '127.0.0.1' })}/upper`, keyboard, screen)
    for (const line of TYPED) {
      keyboard.write(`${line}\n`)
      while (!seen.includes(line.toUpperCase())) await once(screen, 'data')
    }
    keyboard.end()
    await conversation
  } finally {
    await app.close()
  }
  return seen.trimEnd().split('\n')
}

const LINE = 21
const TOP = 34

/** Seconds before a line that is typed, and before one that is the answer to it. */
const PAUSE = { up: 1.4, down: 0.5 }

const STYLE = `
.terminal text { font: 13px ui-monospace, Menlo, Consolas, monospace; white-space: pre }
@media (prefers-reduced-motion: no-preference) {
  .shown { animation: show .1s both }
  @keyframes show { from { opacity: 0 } }
}`

export function terminal (lines: readonly string[]): string {
  const height = TOP + (lines.length + 1) * LINE
  let time = 0
  const shown = lines.map((line, index) => {
    const direction = line.startsWith('up') ? 'up' : 'down'
    time += PAUSE[direction]
    const isContent = !/^\w+ +(\(|\d+ )/.test(line) // neither an end nor a status line
    return `<g class="shown" style="animation-delay: ${time.toFixed(1)}s">${text(24, TOP + (index + 1) * LINE, line, { classes: isContent ? direction : 'dim' })}</g>`
  })
  return svg(height, [
    `<style>${STYLE}</style>`,
    `<rect class="box" x="8" y="8" width="480" height="${height - 16}" rx="8"/>`,
    `<g class="terminal" xml:space="preserve">\n${text(24, TOP, `$ ${COMMAND}`, { classes: 'title' })}\n${shown.join('\n')}\n</g>`
  ], 496)
}
