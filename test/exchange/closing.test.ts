// What becomes of exchanges and their connections when the app closes.

import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { type Start, startersOf } from '../support/http1.ts'
import { GET, type Wire, serve } from '../support/wire.ts'

const { tcp, tls, fallback } = startersOf(t)
const unix: Start = (t, setup, options) => serve(t, 'unix', setup, options)

const LAST_WORDS = 'bye '.repeat(512 * 1024)

const post = (path: string, size: number): string => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`

/** Resolves when the server has stopped listening. At that moment Node destroys the connections that look idle. */
async function stopped ({ server }: FastifyInstance): Promise<void> {
  while (server.listening) await immediate()
}

for (const forceCloseConnections of [true, 'idle']) {
  // Where Node reads and writes, it destroys all connections if that is asked for.
  for (const [kind, start] of Object.entries({ tcp, tls, unix, ...(forceCloseConnections === true ? {} : { fallback }) })) {
    const fastify = { forceCloseConnections }
    const plugin = { closeGrace: 60_000, drainTimeout: 60_000 }
    // Fits into the buffers of the kernel, and on Linux not into those of the client alone.
    const LONG = 'long '.repeat(process.platform === 'linux' && kind !== 'unix' ? 200_000 : 20_000)

    t.test(`last words behind an unread request, ${kind}, ${forceCloseConnections}`, async (t) => {
      const { app, connect } = await start(t, (app) => {
        app.post('/', { duplex: true }, (request, reply) => {
          reply.duplex.once('shutdown', () => reply.duplex.end(LAST_WORDS)).flushHeaders()
        })
      }, { fastify, plugin })
      const wire = await connect()
      wire.send(post('/', 400_000) + 'x'.repeat(200_000))
      await wire.head()
      const closed = app.close()
      t.equal((await wire.body()).length, LAST_WORDS.length)
      wire.socket.end()
      await closed
    })

    if (kind === 'fallback') continue // such a connection stays open, as with Fastify alone
    t.test(`a response whose request is still being dropped, ${kind}, ${forceCloseConnections}`, async (t) => {
      const { app, connect, logged } = await start(t, (app) => {
        app.post('/duplex', { duplex: true }, (request, reply) => { reply.duplex.end(LONG) })
        app.post('/answer', { duplex: true }, async (request, reply) => reply.code(403).send(LONG))
      }, { fastify, plugin })
      const dropping: Wire[] = []
      for (const path of ['/duplex', '/answer']) {
        const idle = await connect()
        const completed = logged('request completed')
        idle.send(post(path, 2) + 'x')
        t.match(await idle.response(), { body: LONG, fields: { connection: 'keep-alive' } })
        await completed
        t.match(await idle.send('x').request(GET('/none')), { statusCode: 404 }, 'an ordinary connection afterwards')
        const wire = await connect()
        wire.socket.pause()
        const completedToo = logged('request completed')
        wire.send(post(path, 3) + 'x')
        await completedToo
        dropping.push(wire)
      }
      const closed = app.close()
      await stopped(app)
      for (const wire of dropping) {
        wire.send('xx').socket.resume()
        t.match(await wire.response(), { body: LONG })
        await wire.ended
        wire.socket.end()
      }
      await closed
    })
  }
}
