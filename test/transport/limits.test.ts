// Limits and timeouts.

import { EventEmitter, once } from 'node:events'
import type { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { IdleWatch, type Watched } from '../../lib/transport/idle-watch.ts'
import { progressOf } from '../../lib/node/socket.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, GET, OPEN, TLS, accepted, chunk, chunked, serve } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

/** More than the buffers of a connection hold. */
const BIG = Buffer.alloc(32 * 1024 * 1024)

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`over ${transport}`, async (t) => {
    t.test('idleTimeout', async (t) => {
      let timeouts = 0
      const { connect, logged } = await serve(t, transport, (app) => {
        app.addHook('onTimeout', async () => { timeouts++ })
        app.post('/', { duplex: { idleTimeout: 20 } }, async (request, reply) => {
          reply.duplex.flushHeaders()
          await echo(request, reply)
        })
        app.post('/before', { duplex: { idleTimeout: 20 } }, echo)
      })
      const wire = await connect()
      const line = logged('request errored')
      await t.rejects(wire.request(OPEN('/')), CUT_OFF)
      t.match(await line, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
      const before = await connect()
      t.match(await before.request(OPEN('/before')), { statusCode: 408, body: /FST_ERR_DUPLEX_IDLE/, fields: { connection: 'close' } })
      await before.ended
      t.equal(timeouts, 2)
    })

    t.test('maxExchanges', async (t) => {
      const { connect } = await serve(t, transport, (app) => {
        app.post('/a', { duplex: true }, echo)
        app.post('/b', { duplex: true }, echo)
        app.post('/own', { duplex: { maxExchanges: 1 } }, echo)
      }, { plugin: { maxExchanges: 2 } })
      const open = await Promise.all(['/a', '/b', '/own'].map(async (url) => {
        const wire = await connect()
        wire.send(OPEN(url) + chunk('x'))
        await wire.head()
        return wire
      }))
      const wire = await connect()
      for (const url of ['/a', '/own']) {
        t.match(await wire.request(chunked(url, 'y')), { statusCode: 503, fields: { 'retry-after': '1' }, body: /FST_ERR_DUPLEX_TOO_MANY/ })
      }
      for (const one of open) one.send('0\r\n\r\n')
      await Promise.all(open.map((one) => one.body()))
      t.match(await wire.request(chunked('/a', 'y')), { statusCode: 200 })
      t.match(await wire.request(chunked('/own', 'y')), { statusCode: 200 })
    })

    t.test('connectionTimeout is for requests that Node reads', async (t) => {
      const { connect, app } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, async (request, reply) => {
          t.equal(request.socket.timeout, 0, 'not here')
          await echo(request, reply)
        })
        app.get('/plain', async (request) => request.socket.timeout)
      }, { fastify: { connectionTimeout: 200 } })
      app.server.keepAliveTimeout = 0
      const wire = await connect()
      t.equal((await wire.request(GET('/plain'))).body, '200')
      t.equal((await wire.request(chunked('/', 'a'))).body, 'a')
      await wire.ended
    })

    t.test('neither requestTimeout nor headersTimeout ends an exchange', async (t) => {
      const { app, connect } = await serve(t, transport, (app) => { app.post('/', { duplex: true }, echo) },
        { fastify: { http: { connectionsCheckingInterval: 10 }, ...(transport === 'tls' ? { https: { ...TLS, connectionsCheckingInterval: 10 } } : {}) } })
      const wire = await connect()
      wire.send(OPEN('/') + chunk('a'))
      await wire.head()
      // Node reads them whenever it checks. The head of this request had all the time it needed.
      Object.assign(app.server, { headersTimeout: 10, requestTimeout: 20 })
      // The check runs: these come later, and go.
      for (let i = 0; i < 3; i++) {
        const slow = await connect()
        slow.send('POST / HT')
        t.equal((await slow.response()).statusCode, 408)
        await slow.ended
      }
      wire.send(chunk('b') + '0\r\n\r\n')
      t.equal(await wire.body(), 'ab')
    })
  })
}

t.test('progress that resets the idle timeout', async (t) => {
  /** A socket that makes progress the first `moves` times it is read. */
  class CountedSocket extends EventEmitter implements Watched {
    looks = 0
    received = 0
    sent = 0
    queued = 0
    readonly moves: number
    readonly move: (socket: CountedSocket) => void

    constructor (moves: number, move: (socket: CountedSocket) => void) {
      super()
      this.moves = moves
      this.move = move
    }

    get bytesRead (): number {
      if (++this.looks <= this.moves) this.move(this)
      return this.received
    }

    get bytesWritten (): number {
      return this.sent
    }

    get _handle (): { writeQueueSize: number } {
      return { writeQueueSize: this.queued }
    }

    get progress (): number {
      return progressOf(this as unknown as Socket)
    }

    get isStuck (): boolean {
      return this.queued > 0
    }

    onIdle (): void {
      this.emit('timeout')
    }
  }

  const awake = setInterval(() => {}, 1000) // the watch keeps no process alive
  t.teardown(() => clearInterval(awake))
  const still = new CountedSocket(0, () => {})
  const moving = [
    new CountedSocket(20, (socket) => { socket.received++ }),
    new CountedSocket(20, (socket) => { socket.sent++ }),
    new CountedSocket(20, (socket) => { socket.queued-- })
  ]
  moving[2].queued = 100 // while data is queued, silence lasts twice as long
  const gone = new CountedSocket(0, () => {})
  gone.on('timeout', () => t.fail('not watched any more'))
  const watch = new IdleWatch(4)
  const watchings = [still, ...moving, gone].map((socket) => watch.add(socket))
  watchings.pop()!.leave()
  const looks = [still, ...moving].map(async (socket) => {
    await once(socket, 'timeout')
    return socket.looks
  })
  t.strictSame(await Promise.all(looks), [5, 24, 24, 28])
  await once(still, 'timeout')
  t.equal(still.looks % 4, 1, 'each silence counts anew')
  for (const watching of watchings) watching.leave()

  const unasked = new CountedSocket(0, () => {})
  t.equal(new IdleWatch(0).start(unasked), null, 'no watch')
})

t.test('an exchange that ends before its connection is borrowed is not watched', async (t) => {
  t.intercept(IdleWatch.prototype, 'start', { value: () => t.fail('nothing would remove it') })
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', {
      duplex: true,
      onRequest (request, reply, done) {
        reply.duplex.flushHeaders()
        reply.duplex.destroy()
        done()
      }
    }, async () => {})
  })
  const wire = await connect()
  wire.send(OPEN('/'))
  await wire.ended
  t.pass('ended')
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: idle timeouts, with onTimeout hooks`, async (t) => {
    for (const style of ['async', 'callback'] as const) {
      for (const handler of ['waits', 'reads', 'writes', 'is stuck'] as const) {
        await t.test(`${style} hook, the handler ${handler}`, async (t) => {
          const hooks: string[] = []
          const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
            if (style === 'async') app.addHook('onTimeout', async (request) => { hooks.push(request.url) })
            else app.addHook('onTimeout', (request, _reply, done) => { hooks.push(request.url); done() })
            app.post('/', { ...routeOptions, duplex: { idleTimeout: 20 } }, async (_request, reply) => {
              if (handler === 'waits') await new Promise(() => {})
              if (handler === 'writes') reply.duplex.write('x')
              if (handler === 'is stuck') reply.duplex.write(BIG)
              await reply.duplex.toArray()
            })
            app.post('/next', { ...routeOptions, duplex: true }, echo)
          })
          const isAnswered = handler === 'waits' || handler === 'reads'
          const line = logged(isAnswered ? 'No byte in either direction for 20 ms' : 'request errored')
          const silent = await ask('/')
          silent.write('x')
          if (handler === 'is stuck') silent.pause()
          t.match(await line, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
          t.strictSame(hooks, ['/'])
          if (isAnswered) t.equal(await silent.status(), 408)
        })
      }
    }
  })
}

t.test('a socket timeout of the app, after the end of the exchange', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHook('onTimeout', async () => t.fail('nothing is late'))
    app.addHook('onResponse', async ({ socket }) => { socket.emit('timeout') })
    app.post('/', { duplex: true }, async (_request, { duplex }) => { duplex.end('x') })
  })
  const [wire] = await accepted(app, connect)
  t.equal((await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab')).body, 'x')
  await immediate()
  t.equal((await wire.request('cPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n', 'POST')).body, 'x')
})

t.test('framing fields behind more field lines than Node keeps', async (t) => {
  const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n'
  const framings = {
    length: `Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
    chunked: `Transfer-Encoding: chunked\r\n\r\n${chunk(SMUGGLED)}0\r\n\r\n`
  }
  for (const maxHeadersCount of [undefined, 40, 100]) {
    const kept = maxHeadersCount ?? 1000
    for (const [name, rest] of Object.entries(framings)) {
      // Node passes fields on in groups of 32. What it drops depends on the place of the limit in such a group.
      for (const before of [kept - 1, kept, kept + 22, kept + 200]) {
        await t.test(`${before} lines before ${name}, maxHeadersCount ${maxHeadersCount}`, async (t) => {
          const { app, connect, log } = await serve(t, 'tcp', (app) => {
            app.post('/', { duplex: true }, echo)
            app.get('/smuggled', async () => t.fail('smuggled'))
          })
          if (maxHeadersCount !== undefined) app.server.maxHeadersCount = maxHeadersCount
          const wire = await connect()
          wire.send('POST / HTTP/1.1\r\nHost: a\r\n' + 'a:\r\n'.repeat(before - 1) + rest)
          t.match(await wire.response(), { statusCode: 431 })
          await wire.ended
          t.ok(log.every(({ err }) => err === undefined || err.code === 'FST_ERR_DUPLEX_FIELD_LIMIT' || err.code === 'HPE_HEADER_OVERFLOW'))
        })
      }
      await t.test(`just as many lines as are kept, ${name}, maxHeadersCount ${maxHeadersCount}`, async (t) => {
        const { app, connect } = await serve(t, 'tcp', (app) => { app.post('/', { duplex: true }, echo) })
        if (maxHeadersCount !== undefined) app.server.maxHeadersCount = maxHeadersCount
        const wire = await connect()
        wire.send('POST / HTTP/1.1\r\nHost: a\r\n' + 'a:\r\n'.repeat(kept - 3) + rest)
        t.match(await wire.response(), { statusCode: 200, body: SMUGGLED })
      })
    }
  }

  await t.test('no limit', async (t) => {
    const { app, connect } = await serve(t, 'tcp', (app) => { app.post('/', { duplex: true }, echo) })
    app.server.maxHeadersCount = 0
    const wire = await connect()
    wire.send('POST / HTTP/1.1\r\nHost: a\r\n' + 'a:\r\n'.repeat(1100) + framings.length)
    t.match(await wire.response(), { statusCode: 200, body: SMUGGLED })
  })
})
