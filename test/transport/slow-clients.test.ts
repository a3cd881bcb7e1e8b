// minRate: a client that sends, or takes, more slowly than that. The clock is moved by the tests.

import { once } from 'node:events'
import { PassThrough, Writable, type Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { RATE_GRACE, rateWatchOf } from '../../lib/exchange/rate-watch.ts'
import duplex from '../../lib/index.ts'
import { jsonl } from '../../lib/items/index.ts'
import { proxy } from '../../lib/proxy/index.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { stopClock } from '../support/clock.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, OPEN, UPGRADE, chunk, chunked, resolvers, serve } from '../support/wire.ts'

const RATE = 10
const SECOND = 'x'.repeat(RATE)
const TOO_SLOW = `The client has sent fewer than ${RATE} bytes per second`

/** More than the buffers of a connection hold. */
const BIG = Buffer.alloc(32 * 1024 * 1024)
const MIB = 1024 * 1024

/** Lets everything happen that needs no client and no clock. There is no event for that. */
async function settle (): Promise<void> {
  for (let i = 0; i < 20; i++) await immediate()
}

/** Repeats a step until something has happened. @returns how often */
async function until (happened: Promise<unknown>, step: () => Promise<void>): Promise<number> {
  const state = { isOver: false }
  happened.then(() => { state.isOver = true })
  let steps = 0
  for (; !state.isOver; steps++) {
    await step()
    await settle()
  }
  return steps
}

/** Waits until the handler has read as much. */
async function received (stream: HttpDuplex, bytes: number): Promise<void> {
  while (stream.bytesRead < bytes && !stream.destroyed) await immediate()
  await settle()
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: the handler waits for a client that sends nothing`, async (t) => {
    const pass = stopClock(t)
    for (const begun of [false, true]) {
      const opened = resolvers<HttpDuplex>()
      const { ask, log, logged } = await serveKind(t, kind, (app, options) => {
        app.post('/', { ...options, duplex: { minRate: RATE } }, async (request, { duplex }) => {
          if (begun) duplex.write('begun')
          opened.resolve(duplex)
          duplex.end(await text(duplex))
        })
      })
      const asked = await ask('/', { later: 'yes' })
      const stream = await opened.promise
      asked.write('x')
      await received(stream, 1)
      if (begun) t.equal(await asked.status(), 200)
      pass(RATE_GRACE)
      await settle()
      t.notOk(stream.destroyed, 'the grace period')
      const line = logged(begun ? 'request errored' : TOO_SLOW)
      pass(1)
      t.match((await line).err, { code: 'FST_ERR_DUPLEX_RATE', message: TOO_SLOW })
      if (begun) {
        await t.rejects(asked.body())
      } else {
        t.equal(await asked.status(), 408)
        t.match(JSON.parse(await asked.body()), { code: 'FST_ERR_DUPLEX_RATE', statusCode: 408 })
      }
      pass(20)
      await settle()
      t.equal(log.filter(({ err }) => err?.code === 'FST_ERR_DUPLEX_RATE').length, 1, 'one line says why')
    }
  })

  t.test(`${name}: a client that keeps up`, async (t) => {
    const pass = stopClock(t)
    const opened = resolvers<HttpDuplex>()
    const { ask, logged } = await serveKind(t, kind, (app, options) => {
      app.post('/', { ...options, duplex: { minRate: RATE } }, async (request, { duplex }) => {
        opened.resolve(duplex)
        duplex.end(await text(duplex))
      })
      app.post('/next', { ...options, duplex: { minRate: RATE } }, async (request, { duplex }) => { duplex.end(await text(duplex)) })
    })
    const asked = await ask('/', { later: 'yes' })
    const stream = await opened.promise
    for (let second = 1; second <= 12; second++) {
      asked.write(SECOND)
      await received(stream, second * RATE)
      pass(1)
    }
    // In bursts: silence for as long as the credit lasts.
    for (let burst = 1; burst <= 3; burst++) {
      asked.write(SECOND.repeat(RATE_GRACE))
      await received(stream, RATE * (12 + burst * RATE_GRACE))
      pass(RATE_GRACE)
    }
    asked.end()
    t.equal(await asked.status(), 200)
    t.equal((await asked.body()).length, RATE * (12 + 3 * RATE_GRACE))
    const next = await ask('/next', { later: 'yes' })
    next.write('next')
    next.end()
    t.equal(await next.status(), 200)
    t.equal(await next.body(), 'next')

    const half = await ask('/next', { later: 'yes' })
    const line = logged(TOO_SLOW)
    await until(line, async () => {
      half.write(SECOND.slice(RATE / 2))
      await settle()
      pass(1)
    })
    t.equal(await half.status(), 408, 'a client half as fast')
  })

  t.test(`${name}: the client does not take the response`, async (t) => {
    const pass = stopClock(t)
    const opened = resolvers<HttpDuplex>()
    const { ask, logged } = await serveKind(t, kind, (app, options) => {
      app.post('/', { ...options, duplex: { minRate: MIB } }, async (request, { duplex }) => {
        opened.resolve(duplex)
        duplex.end(BIG)
      })
    })
    const asked = await ask('/', { later: 'yes' })
    asked.pause()
    await opened.promise
    await settle()
    const line = logged('request errored')
    const seconds = await until(line, async () => { pass(1) })
    t.match((await line).err, { code: 'FST_ERR_DUPLEX_RATE', message: `The client has taken fewer than ${MIB} bytes per second` })
    t.ok(seconds > RATE_GRACE, 'the grace period')
    t.ok(seconds < 200, 'what the kernel has taken counts for no more')
  })

  t.test(`${name}: a client that takes the response late, but in time`, async (t) => {
    const pass = stopClock(t)
    const opened = resolvers<HttpDuplex>()
    const { ask } = await serveKind(t, kind, (app, options) => {
      app.post('/', { ...options, duplex: { minRate: MIB } }, async (request, { duplex }) => {
        opened.resolve(duplex)
        duplex.end(BIG)
      })
    })
    const asked = await ask('/', { later: 'yes' })
    await opened.promise
    await settle()
    pass(RATE_GRACE)
    asked.end()
    t.equal(await asked.status(), 200)
    t.equal((await asked.body()).length, BIG.length)
  })
}

/** Ways to read a body. Each takes the first chunk, calls `hold`, waits for what that returns, and reads on to the end. */
const READERS: Record<string, (duplex: HttpDuplex & { items: AsyncIterable<unknown> }, hold: (chunk?: unknown) => Promise<void>) => Promise<unknown>> = {
  async 'a loop' (duplex, hold) {
    for await (const chunk of duplex) await hold(chunk)
  },
  async 'a loop of Node' (duplex, hold) {
    for await (const chunk of duplex.iterator({ destroyOnReturn: false })) await hold(chunk)
  },
  async 'a pipeline' (duplex, hold) {
    await pipeline(duplex, new Writable({ highWaterMark: 1, write (_chunk, _encoding, done) { hold().then(() => done(), done) } }), { end: true })
  },
  async 'a paused listener' (duplex, hold) {
    duplex.on('data', () => {
      duplex.pause()
      hold().then(() => { duplex.resume() })
    })
    await once(duplex, 'end')
  },
  async 'a listener for readable' (duplex, hold) {
    let isHeld = false
    const read = (): void => {
      if (isHeld || duplex.read() === null) return
      isHeld = true
      hold().then(() => {
        isHeld = false
        read()
      })
    }
    duplex.on('readable', read)
    await once(duplex, 'end')
  },
  async 'the request half' (duplex, hold) {
    for await (const chunk of duplex.requestBody) await hold(chunk)
  },
  async 'the request half, piped' (duplex, hold) {
    await pipeline(duplex.requestBody, new Writable({ highWaterMark: 1, write (_chunk, _encoding, done) { hold().then(() => done(), done) } }))
  },
  async 'a web stream' (duplex, hold) {
    const reader = duplex.web().readable.getReader()
    while (!(await reader.read()).done) await hold()
  }
}

const HOLD_KINDS = { raw: KINDS.raw, h2c: KINDS.h2c }

for (const [name, kind] of Object.entries(HOLD_KINDS)) {
  for (const [way, read] of Object.entries(READERS)) {
    t.test(`${name}: ${way}: time in which the handler does not ask for more`, async (t) => {
      const pass = stopClock(t)
      const opened = resolvers<HttpDuplex>()
      const release = resolvers()
      const held = resolvers()
      const { ask, logged } = await serveKind(t, kind, (app, options) => {
        app.post('/', { ...options, duplex: { minRate: RATE } }, async (request, reply) => {
          opened.resolve(reply.duplex)
          let isFirst = true
          await read(reply.duplex as never, async () => {
            if (!isFirst) return
            isFirst = false
            held.resolve()
            await release.promise
          })
          reply.duplex.end('read')
        })
      })
      const asked = await ask('/')
      const stream = await opened.promise
      asked.write('x')
      await held.promise
      for (let second = 0; second < 4 * RATE_GRACE; second++) {
        await settle()
        pass(1)
      }
      t.notOk(stream.destroyed, 'held: not the fault of the client')
      release.resolve()
      await settle()
      const line = logged(TOO_SLOW)
      pass(RATE_GRACE + 1)
      await line
      t.equal(await asked.status(), 408, 'waiting: too slow')
    })
  }
}

t.test('items', async (t) => {
  const pass = stopClock(t)
  const held = resolvers()
  const release = resolvers()
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { minRate: RATE, receive: jsonl({}) } }, async (request, reply) => {
      for await (const item of reply.duplex.items) {
        t.ok(item)
        held.resolve()
        await release.promise
      }
    })
  })
  const wire = await connect()
  wire.send(OPEN('/').replace('Host: a', 'Host: a\r\nContent-Type: application/jsonl') + chunk('1\n2\n'))
  await held.promise
  for (let second = 0; second < 4 * RATE_GRACE; second++) {
    await settle()
    pass(1)
  }
  const line = logged(TOO_SLOW)
  release.resolve()
  await settle()
  pass(RATE_GRACE + 1)
  await line
  t.match(await wire.response(), { statusCode: 408, fields: { connection: 'close' } })
  await wire.ended
})

t.test('a proxy: only the client is measured, not its server', async (t) => {
  const pass = stopClock(t)
  const opened = resolvers<HttpDuplex>()
  const release = resolvers()
  const upstream = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, { duplex }) => {
      await release.promise
      duplex.end(String((await text(duplex)).length))
    })
  })
  const { connect, logged, app } = await serve(t, 'tcp', (app) => {
    app.post('/', {
      duplex: { minRate: RATE },
      preHandler: async (request, reply) => { opened.resolve(reply.duplex) }
    }, proxy({ upstream: `http://127.0.0.1:${upstream.port}` }))
  })
  const wire = await connect()
  wire.send(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${BIG.length + 1}\r\n\r\n`)
  wire.send(BIG)
  const stream = await opened.promise
  let before = -1
  for (let turns = 0; turns < 100; turns++) {
    await immediate()
    if (stream.bytesRead !== before) turns = 0
    before = stream.bytesRead
  }
  t.ok(before < BIG.length, 'the server does not read')
  for (let second = 0; second < 4 * RATE_GRACE; second++) {
    pass(1)
    await settle()
  }
  t.equal(app.duplex.exchanges().length, 1, 'the client waits for the server')
  release.resolve()
  await received(stream, BIG.length)
  const line = logged(TOO_SLOW)
  pass(RATE_GRACE + 1)
  await line
  t.equal((await wire.response()).statusCode, 408, 'the server waits for the client')
})

t.test('a tunnel', async (t) => {
  const pass = stopClock(t)
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { minRate: RATE } }, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      duplex.write('hello')
      await pipeline(duplex, duplex)
    })
  })
  const wire = await connect()
  wire.send(UPGRADE('/'))
  await wire.head()
  t.equal(await wire.content(5), 'hello')
  for (let second = 0; second < 4 * RATE_GRACE; second++) {
    await settle()
    pass(1)
  }
  wire.send('still')
  t.equal(await wire.content(5), 'still')
})

t.test('a detached connection', async (t) => {
  const pass = stopClock(t)
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { minRate: RATE } }, (request, { duplex }) => {
      const { socket } = duplex.detach()
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
      socket.pipe(socket)
    })
  })
  const wire = await connect()
  wire.send(UPGRADE('/'))
  t.equal((await wire.head()).statusCode, 101)
  pass(10 * RATE_GRACE)
  await settle()
  wire.send('still')
  t.equal(await wire.content(5), 'still')
})

t.test('behind another request of the connection, whose response is due', async (t) => {
  const pass = stopClock(t)
  const first = resolvers()
  const opened = resolvers<HttpDuplex>()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', async () => {
      await first.promise
      return 'first'
    })
    app.post('/', { duplex: { minRate: RATE } }, async (request, { duplex }) => {
      opened.resolve(duplex)
      duplex.end(await text(duplex))
    })
  })
  const wire = await connect()
  wire.send('GET / HTTP/1.1\r\nHost: a\r\n\r\n' + OPEN('/').replace('Host: a', 'Host: a\r\nExpect: 100-continue'))
  await opened.promise
  for (let second = 0; second < 4 * RATE_GRACE; second++) {
    await settle()
    pass(1)
  }
  first.resolve()
  t.equal((await wire.response()).body, 'first')
  t.equal((await wire.head()).statusCode, 100, 'only now the client may send')
  wire.send(chunk('x') + '0\r\n\r\n')
  t.equal((await wire.response()).body, 'x')
  t.equal((await wire.request(chunked('/', 'next'))).body, 'next')
})

t.test('injectDuplex()', async (t) => {
  const pass = stopClock(t)
  const opened = resolvers<HttpDuplex>()
  const app = await appWith(t)
  app.post('/', { duplex: { minRate: RATE } }, async (request, reply) => {
    opened.resolve(reply.duplex)
    return text(reply.duplex)
  })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  client.write('x')
  await received(await opened.promise, 1)
  pass(RATE_GRACE)
  await settle()
  t.equal(app.duplex.exchanges().length, 1)
  pass(1)
  t.match(await client.response, { statusCode: 408 })
  t.match(await text(client), 'FST_ERR_DUPLEX_RATE')
})

t.test('a handler that catches the error may answer itself', async (t) => {
  const pass = stopClock(t)
  const app = await appWith(t)
  app.post('/', { duplex: { minRate: RATE } }, async (request, reply) => {
    try {
      return await text(reply.duplex)
    } catch (error) {
      t.match(request.signal.reason, { code: 'FST_ERR_DUPLEX_RATE' })
      return reply.code(400).send(`too slow: ${(error as { code: string }).code}`)
    }
  })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  await settle()
  pass(RATE_GRACE + 1)
  t.match(await client.response, { statusCode: 400 })
  t.equal(await text(client), 'too slow: FST_ERR_DUPLEX_RATE')
})

t.test('the default of register(), and a route without a rate', async (t) => {
  const pass = stopClock(t)
  const app = await appWith(t, { minRate: RATE })
  const opened = resolvers<Duplex>()
  app.post('/', { duplex: true }, async (request, reply) => text(reply.duplex))
  app.post('/off', { duplex: { minRate: 0 } }, async (request, { duplex }) => {
    opened.resolve(duplex)
    duplex.pipe(new PassThrough()).resume()
    await once(duplex, 'end')
    return 'done'
  })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  const off = await app.injectDuplex({ method: 'POST', url: '/off' })
  await opened.promise
  await settle()
  pass(4 * RATE_GRACE)
  t.match(await client.response, { statusCode: 408 })
  off.end()
  t.match(await off.response, { statusCode: 200 })
  t.equal(rateWatchOf({ minRate: 0 }), null, 'nothing is watched')
})

async function appWith (t: Test, options: object = {}): Promise<FastifyInstance> {
  const app = Fastify() as FastifyInstance
  t.teardown(() => app.close())
  await app.register(duplex, options)
  return app
}

t.test('the client does not take the response, over TLS', async (t) => {
  const pass = stopClock(t)
  const { connect, logged } = await serve(t, 'tls', (app) => {
    app.post('/', { duplex: { minRate: MIB } }, (request, { duplex }) => { duplex.end(BIG) })
  })
  const wire = await connect()
  wire.socket.pause()
  wire.send(chunked('/'))
  const line = logged('request errored')
  await until(line, async () => { pass(1) })
  t.match((await line).err, { code: 'FST_ERR_DUPLEX_RATE', message: /^The client has taken/ })
})

t.test('the response has begun, on the raw connection', async (t) => {
  const pass = stopClock(t)
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { minRate: RATE } }, async function * (request, { duplex }) {
      yield 'begun'
      yield * duplex
    })
  })
  const wire = await connect()
  wire.send(OPEN('/'))
  await wire.head()
  t.equal(await wire.content(5), 'begun')
  const line = logged('request errored')
  await settle()
  pass(RATE_GRACE + 1)
  t.match(await line, { err: { code: 'FST_ERR_DUPLEX_RATE' } })
  await t.rejects(wire.body(), CUT_OFF)
})
