// Exchanges over Node's request/response pair, HTTP/1.1 and HTTP/2.

import { once } from 'node:events'
import http2 from 'node:http2'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { KINDS, serveKind } from '../support/kinds.ts'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { CUT_OFF, GET, OPEN, chunk, chunked, resolvers, serve } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.type(request.headers['content-type'] ?? 'application/octet-stream')
  await pipeline(reply.duplex, reply.duplex)
}

t.test('where the connection cannot be borrowed, Node reads and writes', async (t) => {
  let left!: (code: string) => void
  let entered!: () => void
  const { app, connect, logged } = await serve(t, 'tcp', (app) => {
    addLaterConstraint(app)
    const options = { duplex: true, constraints: { later: 'yes' } }
    app.post('/echo', options, echo)
    app.post('/one', { ...options, duplex: { maxExchanges: 1 } }, echo)
    app.post('/trailers', options, async (request, reply) => {
      const { duplex } = reply
      for await (const chunk of duplex) duplex.write(chunk)
      duplex.setTrailers({ 'x-seen': duplex.trailers['x-sum'] }).end()
    })
    app.post('/left', { ...options, onRequest: async (request) => { entered(); await new Promise((resolve) => request.raw.once('close', resolve)) } }, async (request, reply) => {
      await pipeline(reply.duplex, reply.duplex).catch((error) => left(error.code))
    })
    app.post('/framing', options, async (request, reply) => {
      t.equal(reply.duplex.socket, request.socket)
      return reply.duplex.framing
    })
    app.post('/slow', options, async function * (request, reply) {
      for await (const chunk of reply.header('content-length', 600_000).duplex) {
        await new Promise((resolve) => setImmediate(resolve))
        yield chunk
      }
    })
    app.post('/big', options, (request, reply) => {
      reply.header('content-length', 60_000)
      for (let i = 0; i < 3; i++) reply.duplex.write(Buffer.alloc(20_000, 'x'))
      reply.duplex.end()
    })
    let second = (): void => {}
    app.get('/interim', options, async (request, reply) => {
      t.equal(reply.duplex.writeInformation(103, { link: '</a>' }), true)
      // Waits until the second request is waiting for its turn.
      second()
      if (request.url.endsWith('?first')) await new Promise<void>((resolve) => { second = resolve })
      reply.duplex.end('after')
    })
    app.get('/old', options, (request, reply) => { reply.duplex.end(String(reply.duplex.writeInformation(103))) })
    app.post('/closing', options, (request, reply) => { reply.header('connection', 'close').duplex.end('bye') })
    app.post('/silent', { ...options, duplex: { idleTimeout: 20 } }, (request, reply) => { reply.duplex.flushHeaders() })
    app.post('/fail', options, async (request, reply) => {
      await once(reply.duplex, 'data')
      reply.duplex.write('a')
      await new Promise((resolve) => setImmediate(resolve))
      throw new Error('after the head')
    })
    app.post('/flush', options, async (request, reply) => {
      reply.header('connection', 'close').duplex.flushHeaders()
      await pipeline(reply.duplex, reply.duplex)
    })
  })
  const wire = await connect()
  wire.send(OPEN('/echo') + chunk('one'))
  await wire.head()
  t.equal(await wire.content(), 'one')
  wire.send(chunk('two') + '0\r\n\r\n')
  t.equal(await wire.body(), 'two')
  // Each exchange counts once. Afterwards Node's keepAliveTimeout applies to the connection.
  app.server.keepAliveTimeout = 1
  for (let i = 0; i < 2; i++) {
    const [one, other] = await Promise.all([connect(), connect()])
    one.send(OPEN('/one') + chunk('a'))
    await one.head()
    t.match(await other.request(chunked('/one', 'b')), { statusCode: 503 })
    one.send('0\r\n\r\n')
    t.equal(await one.body(), 'a')
    if (i === 1) await one.ended
  }
  app.server.keepAliveTimeout = 30_000
  wire.send(OPEN('/trailers') + chunk('abc') + '0\r\nX-Sum: 42\r\n\r\n')
  t.match(await wire.response(), { body: 'abc', trailers: { 'x-seen': '42' } })
  const big = 'x'.repeat(300_000)
  t.equal((await wire.request(chunked('/echo', big, big))).body, big + big)
  t.equal((await wire.request(chunked('/slow', big, big))).body, big + big)
  t.equal((await wire.request(chunked('/big'))).body.length, 60_000)
  t.match((await wire.request(chunked('/framing'))).body, '"chunked"')
  const refused = await connect()
  t.match(await refused.request('POST /framing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'), { statusCode: 501 })
  await refused.ended
  wire.send(GET('/interim?first') + GET('/interim'))
  for (let i = 0; i < 2; i++) {
    t.match(await wire.head(), { statusCode: 103, fields: { link: '</a>' } })
    t.match(await wire.response(), { statusCode: 200, body: 'after' })
  }
  t.match(await wire.request(chunked('/closing')), { body: 'bye', fields: { connection: 'close' } })
  await wire.ended
  t.match(await (await connect()).request('GET /old HTTP/1.0\r\n\r\n'), { statusCode: 200, body: 'false' })
  const silent = await connect()
  const errored = logged('request errored')
  await t.rejects(silent.request(OPEN('/silent')), CUT_OFF)
  t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_NOT_ENDED' } })
  const flushed = await connect()
  flushed.send(OPEN('/flush'))
  t.match(await flushed.head(), { statusCode: 200, fields: { 'transfer-encoding': 'chunked' } })
  flushed.send('0\r\n\r\n')
  await flushed.body()
  await t.rejects((await connect()).request(chunked('/fail', 'a')), CUT_OFF)
  const gone = await connect()
  gone.send(OPEN('/echo') + chunk('a'))
  await gone.head()
  gone.socket.resetAndDestroy()
  const leaving = new Promise<string>((resolve) => { left = resolve })
  const leaver = await connect()
  const inHook = new Promise<void>((resolve) => { entered = resolve })
  leaver.send(OPEN('/left'))
  await inHook
  leaver.socket.resetAndDestroy()
  t.match(await leaving, /^(FST_ERR_DUPLEX_ABORTED|ERR_STREAM_UNABLE_TO_PIPE)$/)
  const response = await app.inject({ method: 'POST', url: '/echo', payload: 'injected' })
  t.equal(response.payload, 'injected')
})

for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => http2)) {
  t.test(`${name}: responses that are cut off in every state`, async (t) => {
    const { ask } = await serveKind(t, kind, (app) => {
      app.post('/', { duplex: true }, async (request, { duplex }) => {
        if (request.headers.fails === 'later') duplex.write('x'.repeat(1000))
        else duplex.flushHeaders()
        if (request.headers.fails !== 'first') await immediate()
        duplex.setTrailers({ a: 'b' })
        throw new Error('fails')
      })
    })
    for (let round = 0; round < 20; round++) {
      await Promise.all(['first', 'second', 'later'].flatMap((fails) => [true, false].map(async (ends) => {
        const stream = await ask('/', { fails })
        if (ends) stream.end()
        if (fails !== 'first') t.equal(await stream.status(), 200) // else it was never sent
        await t.rejects(stream.body())
        t.equal(stream.resetCode(), http2.constants.NGHTTP2_INTERNAL_ERROR)
      })))
    }
  })
}

for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => http2)) {
  t.test(`${name}: writes larger than a window`, async (t) => {
    const size = 3 * 1024 * 1024 + 5
    const failed = resolvers<unknown>()
    const { ask } = await serveKind(t, kind, (app) => {
      app.post('/whole', { duplex: true }, (_request, { duplex }) => {
        duplex.write(Buffer.alloc(size))
        duplex.write('x'.repeat(10))
        setImmediate(() => duplex.end(Buffer.alloc(size)))
      })
      app.post('/left', { duplex: true }, (_request, { duplex }) => {
        duplex.on('error', () => {}).write(Buffer.alloc(size), failed.resolve)
      })
    })
    const whole = await ask('/whole')
    whole.end()
    t.equal((await whole.body()).length, 2 * size + 10)
    const left = await ask('/left')
    t.equal(await left.status(), 200)
    left.leave()
    t.match(await failed.promise, { code: 'FST_ERR_DUPLEX_ABORTED' })
  })
}
