// What `app.duplex.exchanges()` shows, from the first hook of an exchange to its end.

import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { open } from '../../lib/client/index.ts'
import duplex from '../../lib/index.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { GET, OPEN, UPGRADE, accepted, chunk, resolvers, serve } from '../support/wire.ts'

/** Waits until no exchange is open any more. */
async function empty (app: FastifyInstance): Promise<void> {
  while (app.duplex.exchanges().length > 0) await immediate()
}

/** Waits until the exchange is in a state. */
async function inState (app: FastifyInstance, state: string): Promise<object> {
  for (;;) {
    const [status] = app.duplex.exchanges()
    if (status?.state === state) return status
    await immediate()
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`an exchange from its hooks to its end, ${name}`, async (t) => {
    const hook = resolvers()
    const begin = resolvers()
    const { app, ask } = await serveKind(t, kind, (app, options) => {
      app.register(async (app) => {
        app.addHook('preHandler', () => hook.promise)
        app.post('/:id', { duplex: true, ...options }, async function * (request, reply) {
          await begin.promise
          yield * reply.duplex
        })
      }, { prefix: '/files' })
    })
    t.strictSame(app.duplex.exchanges(), [])
    const asked = await ask('/files/1?a=b', { later: 'yes' })
    const first = await inState(app, 'hooks')
    const request = kind.http2 ? 'close' : 'chunked'
    t.match(first, { method: 'POST', route: '/files/:id', id: /^req-/, framing: { request, response: undefined }, bytesRead: 0, bytesWritten: 0 })
    t.match(app.duplex.exchanges()[0].request, { url: '/files/1?a=b', params: { id: '1' }, id: app.duplex.exchanges()[0].id })
    hook.resolve()
    await inState(app, 'handler')
    begin.resolve()
    asked.write('abc')
    t.equal(await asked.status(), 200)
    await inState(app, 'both')
    while (app.duplex.exchanges()[0].bytesWritten < 3) await immediate()
    const [{ framing, bytesRead, age }] = app.duplex.exchanges()
    t.match(framing, { request, response: 'chunked' })
    t.equal(bytesRead, 3)
    t.ok(age > 0 && age <= app.duplex.exchanges()[0].age)
    t.match(first, { state: 'hooks', bytesRead: 0 }, 'a snapshot')
    asked.end()
    t.equal(await asked.body(), 'abc')
    await empty(app)
  })

  t.test(`the response is complete and the request is not, or the reverse, ${name}`, async (t) => {
    const end = resolvers()
    const { app, ask } = await serveKind(t, kind, (app, options) => {
      app.post('/reads', { duplex: true, ...options }, async (request, reply) => {
        reply.duplex.end('early')
        await reply.duplex.resume().toArray()
      })
      app.post('/writes', { duplex: true, ...options }, async (request, reply) => {
        reply.duplex.resume().write('begun')
        await end.promise
        reply.duplex.end()
      })
    })
    const reads = await ask('/reads', { later: 'yes' })
    t.equal(await reads.status(), 200)
    await inState(app, 'reading')
    reads.end()
    t.equal(await reads.body(), 'early')
    await empty(app)
    const writes = await ask('/writes', { later: 'yes' })
    writes.end()
    t.equal(await writes.status(), 200)
    await inState(app, 'writing')
    end.resolve()
    t.equal(await writes.body(), 'begun')
    await empty(app)
  })

  t.test(`Fastify answers, ${name}`, async (t) => {
    const sent = resolvers()
    const { app, ask } = await serveKind(t, kind, (app, options) => {
      app.addHook('onSend', () => sent.promise)
      app.post('/', { duplex: true, ...options }, async (request, reply) => reply.code(403).send('no'))
    })
    const asked = await ask('/', { later: 'yes' })
    t.match(await inState(app, 'answer'), { bytesWritten: 0, framing: { response: undefined } })
    sent.resolve()
    t.equal(await asked.status(), 403)
    t.equal(await asked.body(), 'no')
    asked.end()
    await empty(app)
  })
}

t.test('app.inject()', async (t) => {
  const { app } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async function * (request, reply) { yield * reply.duplex })
  })
  const payload = new PassThrough()
  const response = app.inject({ method: 'POST', url: '/', payload })
  payload.write('ab')
  t.match(await inState(app, 'both'), { method: 'POST', route: '/' })
  payload.end('c')
  t.equal((await response).payload, 'abc')
  await empty(app)
})

t.test('a request without a body', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true }, (request, reply) => { reply.duplex.flushHeaders() })
  })
  const wire = await connect()
  wire.send(GET('/'))
  await wire.head()
  t.match(app.duplex.exchanges(), [{ state: 'writing', framing: { request: 'none', response: 'chunked' } }])
})

t.test('app.injectDuplex()', async (t) => {
  const { app } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async function * (request, reply) { yield * reply.duplex })
  })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  client.write('abc')
  await once(client, 'data')
  t.match(app.duplex.exchanges(), [{ state: 'both', bytesRead: 3, bytesWritten: 3, framing: { request: 'chunked', response: 'chunked' } }])
  client.end().resume()
  await once(client, 'end')
  await empty(app)
})

t.test('is not listed while onRequest hooks run, unless one uses the stream', async (t) => {
  const hook = resolvers()
  const begun = resolvers()
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHook('onRequest', async (request, reply) => {
      if (request.url === '/uses') t.equal(reply.duplex.bytesRead, 0)
      begun.resolve()
      await hook.promise
    })
    for (const path of ['/', '/uses']) app.post(path, { duplex: true }, async (request, reply) => { reply.duplex.end() })
  })
  const wire = await connect()
  wire.send(OPEN('/') + '0\r\n\r\n')
  await begun.promise
  t.strictSame(app.duplex.exchanges(), [])
  ;(await connect()).send(OPEN('/uses'))
  t.match(await inState(app, 'hooks'), { route: '/uses' })
  hook.resolve()
  t.equal((await wire.response()).statusCode, 200)
})

t.test('a tunnel, and a detached connection until it closes', async (t) => {
  const sockets: Socket[] = []
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.get('/tunnel', { duplex: true }, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      for await (const chunk of duplex) duplex.write(chunk)
      duplex.end()
    })
    app.get('/detached', { duplex: true }, (request, reply) => {
      const { socket } = reply.duplex.detach({ counted: (request.query as { counted?: string }).counted !== 'no' })
      sockets.push(socket)
      socket.on('error', () => {}).write('hello')
    })
  })
  const [wire, socket] = await accepted(app, connect)
  wire.send(UPGRADE('/tunnel'))
  t.equal((await wire.head()).statusCode, 101)
  t.match(app.duplex.exchanges(), [{ state: 'tunnel', route: '/tunnel', framing: { request: 'none', response: 'close' } }])
  wire.socket.end('ab')
  await once(socket, 'close')
  await empty(app)

  const [detached, detachedSocket] = await accepted(app, connect)
  detached.send(UPGRADE('/detached'))
  await once(detached.socket, 'data')
  t.match(app.duplex.exchanges(), [{ state: 'detached', route: '/detached' }])
  detachedSocket.destroy()
  await once(detachedSocket, 'close')
  t.strictSame(app.duplex.exchanges(), [])

  const uncounted = await connect()
  uncounted.send(UPGRADE('/detached?counted=no'))
  await once(uncounted.socket, 'data')
  t.strictSame(app.duplex.exchanges(), [])
  for (const socket of sockets) socket.destroy()
})

t.test('those that keep the app from closing', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      reply.duplex.flushHeaders()
      await reply.duplex.toArray()
      reply.duplex.end('bye')
    })
  }, { plugin: { closeGrace: 60_000 } })
  const wire = await connect()
  wire.send(OPEN('/') + chunk('a'))
  await wire.head()
  const closed = app.close()
  t.match(await inState(app, 'closing'), { route: '/' })
  wire.send('0\r\n\r\n')
  t.equal(await wire.body(), 'bye')
  await closed
  t.strictSame(app.duplex.exchanges(), [])
})

t.test('each registration of the plugin shows its own exchanges, the oldest first', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  const children: FastifyInstance[] = []
  for (const prefix of ['/a', '/b']) {
    await app.register(async (child) => {
      await child.register(duplex)
      children.push(child)
      await child.register(async (grandchild) => {
        for (const path of ['/1', '/2']) grandchild.post(path, { duplex: true }, async function * (request, reply) { yield * reply.duplex })
        t.equal(grandchild.duplex, child.duplex)
      })
    }, { prefix })
  }
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  t.notOk('duplex' in app)
  const clients = []
  for (const url of ['/a/2', '/b/1', '/a/1']) {
    const client = open(`${address}${url}`, { method: 'POST' })
    client.write('a')
    await once(client, 'data')
    clients.push(client)
  }
  t.strictSame(children.map((child) => child.duplex.exchanges().map(({ route }) => route)), [['/a/2', '/a/1'], ['/b/1']])
  for (const client of clients) {
    client.end().resume()
    await once(client, 'end')
  }
  for (const child of children) await empty(child)
})
