import assert from 'node:assert/strict'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { routes } from './server.ts'
import { converse } from './terminal.ts'

test('the terminal client shows both directions', async (t) => {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(duplex)
  await app.register(routes)
  const address = await app.listen({ port: 0, host: '127.0.0.1' })

  const keyboard = new PassThrough()
  const screen = new PassThrough({ encoding: 'utf8' })
  let seen = ''
  screen.on('data', (text) => { seen += stripVTControlCharacters(text) })
  const shows = async (text: string): Promise<void> => {
    while (!seen.includes(text)) await once(screen, 'data')
  }

  const conversation = converse(`${address}/upper`, keyboard, screen)
  keyboard.write('one\n')
  await shows('down  ONE\n')
  keyboard.write('two\n')
  await shows('down  TWO\n')
  keyboard.end()
  await conversation
  assert.equal(seen, 'up    one\ndown  200 OK\ndown  ONE\nup    two\ndown  TWO\nup    (end)\ndown  (end)\n')
})
