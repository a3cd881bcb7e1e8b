// Together with frameworks on the same server: NestJS, whose guards, interceptors and filters may answer in place of a route,
// and Socket.IO, which handles requests and upgrades before Fastify sees them.

import { createRequire } from 'node:module'
import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import { Server } from 'socket.io'
import { type Socket, io } from 'socket.io-client'
import t, { type Test } from 'tap'
import { chunk, chunked, serve } from '../support/wire.ts'
import { serveNest } from './nest.ts'
import { checkPlain, converse, get, open, post, upper } from './support.ts'

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`NestJS over ${transport}`, async (t) => {
    const { connect, seen } = await serveNest(t, { transport })
    const wire = await connect()
    await converse(t, wire)
    t.match(await wire.request(get('/words/plain')), { statusCode: 200, body: 'plain' }, 'a controller on the same connection')
    await converse(t, wire, '', '/words/upper')
    t.strictSame(seen, ['handler', 'interceptor'])
    await checkPlain(t, wire)
    t.match(await wire.request(get('/words/plain')), { statusCode: 200, body: 'plain' })
  })
}

t.test('NestJS: a generator that a controller returns', async (t) => {
  const { connect, logged } = await serveNest(t)
  const wire = await connect()
  await converse(t, wire, '', '/words/returned')
  await checkPlain(t, wire)
  wire.send(open('/words/returned') + chunk('one'))
  t.match(await wire.head(), { statusCode: 200 })
  t.equal(await wire.content(3), 'ONE')
  const line = Promise.race([logged('request completed'), logged('request errored')])
  wire.send(chunk('fail'))
  await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
  t.match(await line, { msg: 'request errored' })
  await wire.ended
  await checkPlain(t, await connect())
})

t.test('NestJS: guards and interceptors refuse before the upload', async (t) => {
  const { connect, seen, log } = await serveNest(t)
  for (const path of ['/words/guarded', '/words/intercepted']) {
    const wire = await connect()
    t.match(await wire.request(post(path, 'a/b', 'some of it')), { statusCode: 403, fields: { connection: 'keep-alive' }, body: /"statusCode":403/ })
    t.match(await wire.request(chunked(path, 'some', 'more')), { statusCode: 403, fields: { connection: 'keep-alive' } })
    await checkPlain(t, wire)
    const expecting = await connect()
    expecting.send(open(path, 'Expect: 100-continue\r\n'))
    t.match(await expecting.response(), { statusCode: 403 }, 'without a 100')
    await expecting.ended
    await checkPlain(t, await connect())
  }
  t.strictSame(seen, [])
  t.equal(log.filter(({ level }) => level >= 50).length, 0)
})

for (const filter of [false, true]) {
  const name = filter ? 'a global filter' : 'Nest\'s own filter'

  t.test(`NestJS: an error before the head is answered by ${name}`, async (t) => {
    const { connect } = await serveNest(t, { filter })
    const wire = await connect()
    for (const [path, said] of [['/words/failed', 'not one'], ['/failed', 'not this one']]) {
      t.match(await wire.request(post(path, 'a/b', 'one')), filter
        ? { statusCode: 418, body: JSON.stringify({ said }) }
        : { statusCode: 500, body: /Internal server error/ })
      await checkPlain(t, wire)
    }
    await converse(t, wire)
  })

  t.test(`NestJS: an error after the head cannot be answered by ${name}`, async (t) => {
    const { connect, logged } = await serveNest(t, { filter, options: { idleTimeout: 1000 } })
    const wire = await connect()
    const line = Promise.race([logged('request errored'), logged('request completed')])
    wire.send(open('/words/cut') + chunk('one'))
    t.match(await wire.head(), { statusCode: 200 })
    t.equal(await wire.content(3), 'one')
    await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'the response is cut off, without a second head')
    await wire.ended
    const { msg, err } = await line
    t.equal(msg, 'request errored')
    t.not(err?.code, 'FST_ERR_DUPLEX_IDLE')
    const next = await connect()
    await converse(t, next)
    await checkPlain(t, next)
    t.match(await next.request(get('/words/plain')), { statusCode: 200 })
  })
}

t.test('NestJS: close() waits for exchanges', async (t) => {
  const { app, connect } = await serveNest(t, { options: { closeGrace: 10_000 } })
  const [wire, idle] = [await connect(), await connect()]
  await checkPlain(t, idle)
  wire.send(open('/words/upper') + chunk('one'))
  await wire.head()
  t.equal(await wire.content(3), 'ONE')
  const closed = app.close()
  t.equal(await wire.content(7), 'closing')
  wire.send(chunk('two') + '0\r\n\r\n')
  t.equal(await wire.body(), 'TWO')
  await wire.ended
  await idle.ended
  await closed
})

t.test('NestJS: inject()', async (t) => {
  const { app } = await serveNest(t)
  for (const url of ['/upper', '/words/upper']) {
    t.match(await app.inject({ method: 'POST', url, payload: 'one' }), { statusCode: 200, payload: 'ONE' })
  }
  t.match(await app.inject('/words/plain'), { payload: 'plain' })
  // Nest pins this version of light-my-request. If npm deduplicates it, Fastify's own inject() uses it, too.
  const { inject } = createRequire(require.resolve('@nestjs/platform-fastify'))('light-my-request') as {
    inject: (dispatch: FastifyInstance['routing'], options: InjectOptions) => Promise<LightMyRequestResponse>
  }
  const { routing } = app.getHttpAdapter().getInstance() as unknown as FastifyInstance
  await t.resolveMatch(inject(routing, { method: 'POST', url: '/upper', payload: 'one' }), { statusCode: 200, payload: 'ONE' }, 'the light-my-request that Nest pins')
})

const askUpper = async (socket: Socket, word: string): Promise<string> => await socket.emitWithAck('upper', word) as string

async function attachSocketIo (app: FastifyInstance): Promise<void> {
  const server = new Server(app.server)
  server.on('connection', (socket) => {
    socket.on('upper', (word: string, answer: (word: string) => void) => { answer(word.toUpperCase()) })
  })
  app.addHook('preClose', async () => { server.local.disconnectSockets(true) })
  app.addHook('onClose', async () => { await server.close() })
}

for (const transport of ['tcp', 'tls'] as const) {
  for (const order of ['before', 'after']) {
    t.test(`socket.io over ${transport}, attached ${order} fastify-duplex`, async (t) => {
      const served = await serve(t, transport, async (app) => {
        if (order === 'after') await attachSocketIo(app)
        app.post('/upper', { duplex: true }, upper)
        app.get('/plain', async () => 'plain')
        app.get('/tunnel', { duplex: true }, async (request, reply) => {
          const { duplex } = reply.code(101).header('upgrade', 'tcp')
          for await (const chunk of duplex) duplex.write(String(chunk).toUpperCase())
          duplex.end()
        })
      }, { before: order === 'before' ? attachSocketIo : () => {} })
      const connectClient = async (t: Test, kind: string): Promise<Socket> => {
        const socket = io(`${transport === 'tls' ? 'https' : 'http'}://127.0.0.1:${served.port}`, { transports: [kind], reconnection: false, rejectUnauthorized: false })
        t.teardown(() => socket.close())
        await new Promise<void>((resolve, reject) => { socket.on('connect', resolve).on('connect_error', reject) })
        return socket
      }
      const wire = await served.connect()
      await converse(t, wire)
      for (const kind of ['websocket', 'polling']) {
        await t.test(kind, async (t) => {
          const socket = await connectClient(t, kind)
          t.equal(await askUpper(socket, 'one'), 'ONE')
          wire.send(open('/upper') + chunk('two'))
          await wire.head()
          t.equal(await wire.content(3), 'TWO')
          t.equal(await askUpper(socket, 'three'), 'THREE')
          wire.send(chunk('four') + '0\r\n\r\n')
          t.equal(await wire.body(), 'FOUR')

          // An upgrade to a protocol other than WebSocket reaches the route.
          const tunnel = await served.connect()
          tunnel.send(get('/tunnel', 'Connection: Upgrade\r\nUpgrade: tcp\r\n') + 'five')
          t.match(await tunnel.head(), { statusCode: 101, fields: { upgrade: 'tcp' } })
          t.equal(await tunnel.content(4), 'FIVE')
          t.equal(await askUpper(socket, 'six'), 'SIX')
          tunnel.socket.end('seven')
          t.equal(await tunnel.body(), 'SEVEN')
          await checkPlain(t, wire)
        })
      }
      await converse(t, wire)
      await checkPlain(t, wire)

      const socket = await connectClient(t, 'websocket')
      const disconnected = new Promise((resolve) => { socket.on('disconnect', resolve) })
      wire.send(open('/upper') + chunk('one'))
      await wire.head()
      await served.app.close()
      await Promise.all([disconnected, wire.ended])
    })
  }
}
