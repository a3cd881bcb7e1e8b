// Code that waits for an event of the stream is never left waiting: for 'drain' on a stream that has failed, for the end of a
// stream that nobody reads any more.

import { once } from 'node:events'
import { finished } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { HttpDuplex } from '../../types/index.d.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { GET, OPEN, chunk, chunked, resolvers, serve, untilStuck } from '../support/wire.ts'

/** How people wait for 'drain'. */
const WAYS: Record<string, (duplex: HttpDuplex) => Promise<unknown>> = {
  once: (duplex) => once(duplex, 'drain'),
  promise: (duplex) => new Promise<void>((resolve) => { duplex.once('drain', resolve) }),
  addListener: (duplex) => new Promise<void>((resolve) => { duplex.addListener('drain', resolve) })
}

const MIB = Buffer.alloc(1024 * 1024)

/** What code does with a stream that it does not want any more. */
const LEAVES: ((duplex: HttpDuplex) => unknown)[] = [
  function removeListener (duplex) { duplex.removeListener('data', ignore) },
  function removeAllListeners (duplex) { duplex.removeAllListeners('data') },
  function removeEverything (duplex) { duplex.removeAllListeners() },
  function pause (duplex) { duplex.pause() }
]

/** The loop that every manual shows, at a path for each way. */
function addLoops (app: FastifyInstance): void {
  for (const [name, drained] of Object.entries(WAYS)) {
    app.post(`/${name}`, { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      for await (const content of duplex) {
        if (!duplex.write(content)) await drained(duplex)
      }
      duplex.end()
    })
  }
}

for (const transport of ['tcp', 'tls', 'unix'] as const) {
  for (const way of Object.keys(WAYS)) {
    t.test(`content and a malformed chunk in one read, ${way}, over ${transport}`, async (t) => {
      const { connect } = await serve(t, transport, addLoops)
      const wire = await connect()
      wire.send(`${OPEN(`/${way}`)}5\r\nhelloXX`)
      const head = await wire.head()
      t.equal(head.statusCode, 400)
      t.match(await wire.body(), 'FST_ERR_DUPLEX_CHUNK')
      await wire.ended
    })
  }
}

t.test('a loop that never looks at its stream stops at last', async (t) => {
  const { logged, connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, { duplex }) => {
      for (let count = 0; ; count++) {
        if (!duplex.write('x')) await new Promise<void>((resolve) => { duplex.once('drain', resolve) })
        written = count
      }
    })
  })
  let written = 0
  const closed = logged('stream closed prematurely')
  const wire = await connect()
  wire.send(OPEN('/'))
  await wire.head()
  wire.socket.resetAndDestroy()
  await closed
  let before
  do {
    before = written
    await immediate()
    await immediate()
  } while (written > before)
  t.ok(written > 0)
})

for (const [name, kind] of Object.entries(KINDS)) {
  for (const [way, drained] of Object.entries(WAYS)) {
    t.test(`${name}: a client that leaves while the handler waits, ${way}`, async (t) => {
      const opened = resolvers<HttpDuplex>()
      const left = resolvers()
      const { ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { duplex: true, ...routeOptions }, async (request, reply) => {
          const { duplex } = reply
          opened.resolve(duplex)
          try {
            while (!duplex.destroyed) {
              if (!duplex.write(MIB)) await drained(duplex)
            }
          } finally {
            left.resolve()
          }
        })
      })
      const asked = await ask('/')
      asked.pause()
      const duplex = await opened.promise
      await untilStuck(() => duplex.bytesWritten)
      t.equal(duplex.writableNeedDrain, true)
      asked.leave()
      await left.promise
    })

    t.test(`${name}: a handler that goes on writing when the exchange has failed, ${way}`, async (t) => {
      const failed = resolvers()
      const { ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { duplex: true, ...routeOptions }, async (request, reply) => {
          const { duplex } = reply
          duplex.write('a')
          duplex.on('error', () => {})
          if (!duplex.closed) await new Promise((resolve) => { duplex.once('close', resolve) })
          for (let i = 0; i < 3; i++) {
            t.equal(duplex.write('b'), false)
            await drained(duplex)
          }
          failed.resolve()
        })
      })
      const asked = await ask('/')
      await asked.status()
      asked.leave()
      await failed.promise
    })
  }

  for (const leave of LEAVES) {
    t.test(`${name}: a reader that leaves after the response, by ${leave.name}`, async (t) => {
      const opened = resolvers<HttpDuplex>()
      const responded = resolvers()
      const over = resolvers()
      let requests = 0
      const { ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.addHook('onResponse', async () => { over.resolve() })
        app.post('/', { duplex: { maxExchanges: 1, drainTimeout: 50 }, ...routeOptions }, (request, reply) => {
          if (++requests === 1) {
            opened.resolve(reply.duplex)
            reply.duplex.on('data', ignore)
            reply.duplex.on('finish', responded.resolve)
          }
          reply.duplex.end('done')
        })
      })
      const first = await ask('/')
      first.write('a')
      t.equal(await first.status(), 200)
      await responded.promise
      leave(await opened.promise)
      first.write('b')
      await over.promise
      first.end()
      t.equal(await first.body(), 'done')
      const next = await ask('/')
      next.end()
      t.equal(await next.status(), 200, 'the exchange is not counted any more')
      t.equal(await next.body(), 'done')
    })
  }
}

t.test('a reader that pauses after the response, and resumes', async (t) => {
  const opened = resolvers<HttpDuplex>()
  const read: string[] = []
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout: 60_000 } }, (request, { duplex }) => {
      opened.resolve(duplex)
      duplex.on('data', (chunk) => { read.push(String(chunk)) })
      duplex.end('done')
    })
  })
  const wire = await connect()
  wire.send(OPEN('/') + chunk('a'))
  t.match(await wire.response(), { body: 'done' })
  const duplex = await opened.promise
  duplex.pause()
  for (let i = 0; i < 3; i++) await immediate()
  duplex.resume()
  wire.send(chunk('b') + '0\r\n\r\n')
  await once(duplex, 'close')
  t.strictSame(read, ['a', 'b'])
  t.match(await wire.request(chunked('/', 'c')), { body: 'done' })
})

t.test('finished() after a good answer to a request without a body', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true }, async (request, reply) => {
      done.push(finished(reply.duplex))
      reply.duplex.end('done')
    })
  })
  const done: Promise<void>[] = []
  const wire = await connect()
  for (let i = 0; i < 2; i++) {
    t.equal((await wire.request(GET('/'))).body, 'done')
    await done[i]
  }
})

function ignore (): void {}
