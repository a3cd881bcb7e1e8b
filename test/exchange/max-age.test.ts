// maxAge: an exchange that is older is told to end, as when the app closes, and ended after `closeGrace`.

import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import duplex from '../../lib/index.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, OPEN, UPGRADE, chunk, resolvers, serve } from '../support/wire.ts'

const TOO_OLD = 'The exchange has not ended within 20 ms'
const AGE = { code: 'FST_ERR_DUPLEX_AGE' }

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a handler that says goodbye`, async (t) => {
    const reasons: unknown[] = []
    const states: string[] = []
    const { app, ask, log } = await serveKind(t, kind, (app, options) => {
      app.post('/', { ...options, duplex: { maxAge: 20, closeGrace: 60_000 } }, async function * (request, reply) {
        reply.duplex.on('shutdown', () => {
          reasons.push(request.signal.reason)
          states.push(app.duplex.exchanges()[0].state)
          reply.duplex.stopReading()
        })
        yield 'hello '
        for await (const chunk of reply.duplex) yield chunk
        yield 'goodbye'
      })
      app.post('/next', { ...options, duplex: true }, async (request, { duplex }) => { duplex.end(await text(duplex)) })
    })
    const asked = await ask('/', { later: 'yes' })
    t.equal(await asked.status(), 200)
    t.equal(await asked.body(), 'hello goodbye')
    t.match(reasons, [AGE])
    t.equal(reasons.length, 1, 'told once')
    t.strictSame(states, ['closing'])
    asked.end()
    while (app.duplex.exchanges().length > 0) await immediate()
    t.notOk(log.some(({ msg }) => msg === 'request errored'), 'a good end')
    const next = await ask('/next', { later: 'yes' })
    next.end()
    t.equal(await next.status(), 200, 'the connection is kept')
    t.equal(await next.body(), '')
  })

  t.test(`${name}: a handler that does not listen`, async (t) => {
    for (const begun of [false, true]) {
      const { ask, log, logged } = await serveKind(t, kind, (app, options) => {
        app.post('/', { ...options, duplex: { maxAge: 20, closeGrace: 20 } }, async (request, { duplex }) => {
          if (begun) duplex.write('begun')
          duplex.end(await text(duplex))
        })
      })
      const line = logged(begun ? 'request errored' : TOO_OLD)
      const asked = await ask('/', { later: 'yes' })
      asked.write('x')
      t.equal(await asked.status(), begun ? 200 : 408)
      if (begun) await t.rejects(asked.body())
      else t.match(JSON.parse(await asked.body()), { ...AGE, statusCode: 408, message: TOO_OLD })
      t.match((await line).err, { ...AGE, message: TOO_OLD })
      t.equal(log.filter(({ err }) => err?.code === AGE.code).length, 1, 'one line says why')
    }
  })

  t.test(`${name}: a handler that never returns`, async (t) => {
    const { app, ask, logged } = await serveKind(t, kind, (app, options) => {
      app.post('/', { ...options, duplex: { maxAge: 20, closeGrace: 20 } }, () => new Promise(() => {}))
    })
    const line = logged(TOO_OLD)
    const asked = await ask('/', { later: 'yes' })
    t.equal(await asked.status(), 408)
    t.match((await line).err, AGE)
    asked.end()
    while (app.duplex.exchanges().length > 0) await immediate()
  })
}

t.test('the connection after the answer', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { maxAge: 20, closeGrace: 20 } }, async (request, { duplex }) => { await text(duplex) })
  })
  const wire = await connect()
  t.match(await wire.request(OPEN('/') + chunk('x')), { statusCode: 408, fields: { connection: 'close' } })
  await wire.ended
})

t.test('before the handler, in a hook', async (t) => {
  const release = resolvers()
  const { app, connect, logged } = await serve(t, 'tcp', (app) => {
    for (const hook of ['onRequest', 'preHandler'] as const) {
      app.post(`/${hook}`, {
        duplex: { maxAge: 20, closeGrace: 60_000 },
        async [hook] () { await release.promise }
      }, async (request, reply) => {
        if (!request.signal.aborted) await once(request.signal, 'abort')
        t.match(request.signal.reason, AGE)
        const told = once(reply.duplex, 'shutdown')
        await told
        return 'told'
      })
    }
    app.post('/stuck', { duplex: { maxAge: 20, closeGrace: 20 }, onRequest: () => new Promise(() => {}) }, async () => {})
  })
  const wires = await Promise.all(['/onRequest', '/preHandler'].map(async (path) => (await connect()).send(OPEN(path))))
  const stuck = await connect()
  const line = logged('request errored')
  stuck.send(OPEN('/stuck'))
  await stuck.ended
  t.match((await line).err, AGE, 'a hook that never ends is cut off')
  release.resolve()
  for (const wire of wires) t.match(await wire.response(), { statusCode: 200, body: 'told' })
  t.equal(app.duplex.exchanges().filter(({ route }) => route !== '/stuck').length, 0)
})

t.test('an exchange that was told, when the app closes', async (t) => {
  const told = resolvers<HttpDuplex>()
  let times = 0
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { maxAge: 20, closeGrace: 60_000 } }, (request, reply) => {
      reply.duplex.write('begun ')
      reply.duplex.on('shutdown', () => {
        times++
        told.resolve(reply.duplex)
      })
    })
    app.post('/deaf', { duplex: { maxAge: 20, closeGrace: 100 } }, (request, reply) => { reply.duplex.write('begun') })
  }, { fastify: { forceCloseConnections: 'idle', pluginTimeout: 0 } })
  const [wire, deaf] = [await connect(), await connect()]
  wire.send(OPEN('/'))
  deaf.send(OPEN('/deaf'))
  await wire.head()
  await deaf.head()
  const stream = await told.promise
  const closed = app.close()
  await immediate()
  stream.end('goodbye')
  t.equal(await wire.body(), 'begun goodbye')
  wire.socket.end()
  await t.rejects(deaf.body(), CUT_OFF)
  deaf.socket.end()
  await closed
  t.equal(times, 1, 'told once')
})

t.test('a detached connection', async (t) => {
  const told = resolvers()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/early', { duplex: { maxAge: 20, closeGrace: 20 } }, (request, reply) => {
      const { socket } = reply.duplex.detach()
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
      socket.pipe(socket)
    })
    app.get('/late', { duplex: { maxAge: 20, closeGrace: 20 } }, (request, reply) => {
      const { duplex } = reply
      duplex.once('shutdown', () => {
        const { socket } = duplex.detach()
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
        socket.pipe(socket)
      })
    })
    app.post('/', { duplex: { maxAge: 100, closeGrace: 60_000 } }, (request, reply) => {
      reply.duplex.once('shutdown', () => {
        told.resolve()
        reply.duplex.end()
      })
    })
  })
  const wires = []
  for (const path of ['/early', '/late']) {
    const wire = await connect()
    wire.send(UPGRADE(path))
    t.equal((await wire.head()).statusCode, 101)
    wires.push(wire)
  }
  // Longer than both times of the routes above.
  for (let i = 0; i < 2; i++) {
    const other = await connect()
    other.send(OPEN('/'))
    await other.response()
  }
  await told.promise
  for (const wire of wires) {
    wire.send('still here')
    t.equal(await wire.content(10), 'still here')
  }
})

t.test('injectDuplex() and inject()', async (t) => {
  const awake = setInterval(() => {}, 1000) // the timer of an exchange keeps no process alive
  t.teardown(() => clearInterval(awake))
  const app = await appWith(t, { maxAge: 20, closeGrace: 20 })
  app.post('/', { duplex: true }, async (request, reply) => text(reply.duplex))
  app.post('/never', { duplex: true }, () => new Promise(() => {}))
  app.post('/off', { duplex: { maxAge: 0 } }, async (request, { duplex }) => {
    duplex.on('shutdown', () => t.fail('no limit here'))
    return text(duplex)
  })
  const off = await app.injectDuplex({ method: 'POST', url: '/off' })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  client.write('x')
  t.match(await client.response, { statusCode: 408 })
  t.match(await text(client), 'FST_ERR_DUPLEX_AGE')
  t.match(await app.inject({ method: 'POST', url: '/never', payload: 'x' }), { statusCode: 408 })
  off.end('x')
  t.equal(await text(off), 'x', 'a route may switch it off')
})

t.test('a listener that throws', async (t) => {
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { maxAge: 20, closeGrace: 60_000 } }, (request, reply) => {
      reply.duplex.once('shutdown', () => { throw new Error('in a listener') })
      reply.duplex.flushHeaders()
    })
  })
  const line = logged('request errored')
  const wire = await connect()
  wire.send(OPEN('/'))
  await wire.head()
  await t.rejects(wire.body(), CUT_OFF)
  t.match(await line, { err: { message: 'in a listener' } })
})

async function appWith (t: Test, options: object): Promise<FastifyInstance> {
  const app = Fastify() as FastifyInstance
  t.teardown(() => app.close())
  await app.register(duplex, options)
  return app
}
