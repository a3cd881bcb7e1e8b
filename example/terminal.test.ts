import assert from 'node:assert/strict'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { routes } from './server.ts'
import { converse } from './terminal.ts'

async function start (t: TestContext): Promise<string> {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(duplex)
  await app.register(routes)
  app.post('/closed', { duplex: true }, async (request, reply) => reply.code(403).send('not now'))
  return app.listen({ port: 0, host: '127.0.0.1' })
}

test('the terminal client shows both directions', async (t) => {
  const address = await start(t)
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

test('the terminal client stops when the response has ended, or when there is none', async (t) => {
  const address = await start(t)
  const screen = new PassThrough({ encoding: 'utf8' })
  await converse(`${address}/closed`, new PassThrough(), screen)
  assert.match(stripVTControlCharacters(screen.read()), /^down {2}403 Forbidden\ndown {2}not now\ndown {2}\(end\)\nup {4}\(end\)\n$/)
  await assert.rejects(converse('http://127.0.0.1:1', new PassThrough(), screen), { code: 'FST_ERR_DUPLEX_CONNECT' })
})
