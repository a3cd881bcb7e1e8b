// The snippets of docs/lifecycle.md, and what its tables say of a client that leaves.

import { channel, subscribe } from 'node:diagnostics_channel'
import { EventEmitter, once } from 'node:events'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setImmediate as immediate } from 'node:timers/promises'
import t from 'tap'
import { OPEN, chunk, chunked, resolvers, serve } from '../support/wire.ts'
import { RATE_GRACE } from '../../lib/exchange/rate-watch.ts'
import { read, rowsIn, sectionIn } from './pages.ts'
import { make, run, testSnippets } from './snippets.ts'

const PAGE = 'docs/lifecycle.md'

testSnippets(PAGE, [
  ["app.post('/shout'", async (code, t) => {
    const { app, connect } = await serve(t, 'tcp', (app) => run(code, { app }), { plugin: { closeGrace: 60_000 } })
    const wire = await connect()
    wire.send(OPEN('/shout') + chunk('hello '))
    await wire.head()
    t.equal(await wire.content(), 'HELLO ')
    const closed = app.close()
    t.equal(await wire.body(), 'goodbye\n')
    wire.socket.end()
    await closed
  }],
  ["import { subscribe } from 'node:diagnostics_channel'", async (code, t) => {
    const lines: unknown[][] = []
    const app = await make(t)
    app.post('/', { duplex: true }, async function * (_request, reply) {
      yield * reply.duplex
      yield 'c'
    })
    const before = channel('fastify-duplex.exchange.finish').hasSubscribers
    await run(code, { load: async () => ({ subscribe }), console: { log: (...line: unknown[]) => lines.push(line) } })
    t.notOk(before)
    await app.inject({ method: 'POST', url: '/', payload: 'ab' })
    t.match(lines, [['/', 2, 3, Number]])
  }]
])

t.test('the grace period of minRate is that of the code', async (t) => {
  t.match(sectionIn(PAGE, 'Timeouts'), `a credit of ${RATE_GRACE} seconds`)
  t.equal(RATE_GRACE, 5)
  t.match(read('README.md'), 'stays slower for [five seconds]')
  t.match(read('types/index.d.ts'), 'a credit of five seconds')
})

/** The rows of the table of clients that leave, each with what the client does and what the handler does. */
const LEAVES: [says: RegExp, within: boolean, leave: (socket: Socket) => void, reads: boolean, begun: boolean, code: string, log: string, hooks: string[]][] = [
  [/^resets/, true, (socket) => socket.resetAndDestroy(), true, true, 'ABORTED', 'stream closed prematurely', ['onRequestAbort', 'onResponse']],
  [/^resets/, true, (socket) => socket.resetAndDestroy(), true, false, 'ABORTED', 'stream closed prematurely', ['onRequestAbort', 'onResponse']],
  [/within its body, and the handler reads$/, true, (socket) => socket.end(), true, true, 'TRUNCATED', 'stream closed prematurely', ['onError', 'onRequestAbort', 'onResponse']],
  [/within its body, and the handler reads$/, true, (socket) => socket.end(), true, false, 'TRUNCATED', 'request completed', ['onError', 'onResponse']],
  [/within its body, and the handler does not read$/, true, (socket) => socket.end(), false, true, 'ABORTED', 'stream closed prematurely', ['onRequestAbort', 'onResponse']],
  [/after its body$/, false, (socket) => socket.end(), false, true, 'ABORTED', 'stream closed prematurely', ['onRequestAbort', 'onResponse']]
]

t.test('a client that leaves', async (t) => {
  const rows = rowsIn(sectionIn(PAGE, 'The client leaves').split('### ')[0])
  t.strictSame(rows.filter(([client]) => !LEAVES.some(([says]) => says.test(client))), [], 'each row is tried')
  for (const [says, within, leave, reads, begun, code, message, expected] of LEAVES) {
    await t.test(`${says.source}, ${begun ? 'after' : 'before'} the first byte`, async (t) => {
      const seen = resolvers<{ error: { code: string }, signal: AbortSignal }>()
      const running = resolvers()
      const hooks: string[] = []
      const happened = new EventEmitter()
      const all = new Promise<void>((resolve) => {
        happened.on('hook', (name) => {
          if (hooks.push(name) === expected.length) resolve()
        })
      })
      const { connect, logged } = await serve(t, 'tcp', (app) => {
        app.addHook('onError', async (_request, _reply, _error) => { happened.emit('hook', 'onError') })
        app.addHook('onResponse', async (_request, _reply) => { happened.emit('hook', 'onResponse') })
        app.addHook('onRequestAbort', async (_request) => { happened.emit('hook', 'onRequestAbort') })
        app.post('/', { duplex: true }, async (request, reply) => {
          if (begun) reply.duplex.write('x')
          running.resolve()
          try {
            // A handler that does not read waits for the signal, and gives up.
            if (!reads) await new Promise((_resolve, reject) => request.signal.addEventListener('abort', () => reject(request.signal.reason)))
            await text(reply.duplex)
          } catch (error) {
            seen.resolve({ error: error as { code: string }, signal: request.signal })
            throw error
          }
        })
      })
      const wire = await connect()
      const line = logged(message)
      wire.send(within ? OPEN('/') : chunked('/'))
      await running.promise
      if (begun) await wire.head()
      else if (reads) await immediate()
      leave(wire.socket)
      const { error, signal } = await seen.promise
      t.equal(error.code, `FST_ERR_DUPLEX_${code}`)
      t.equal((signal.reason as { code: string }).code, error.code, 'the reason of the signal')
      await line
      await all
      t.strictSame(hooks.sort(), expected)
      if (code === 'TRUNCATED' && !begun) t.match(await wire.response(), { statusCode: 400 })
    })
  }
})

t.test('a client that only ends its side after its body gets the response', async (t) => {
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      await once(request.signal, 'abort')
      reply.duplex.end('still there')
    })
  })
  const wire = await connect()
  const line = logged('request completed')
  wire.send(chunked('/')).socket.end()
  t.match(await wire.response(), { statusCode: 200, body: 'still there' })
  await line
})
