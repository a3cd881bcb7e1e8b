// app.injectDuplex(): exchanges without a port, over the real parser, the real hand-off and the real readers.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import duplex from '../../lib/index.ts'
import type { InjectedDuplex } from '../../types/index.d.ts'
import { TLS } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

async function make (t: Test, routes: (app: FastifyInstance) => unknown, { fastify = {} }: { fastify?: object } = {}): Promise<FastifyInstance> {
  const app = Fastify(fastify)
  t.teardown(() => app.close())
  await app.register(duplex, { closeGrace: 0 })
  await routes(app)
  return app
}

async function say (client: InjectedDuplex, words: string): Promise<string> {
  client.write(words)
  const [chunk] = await once(client, 'data')
  return String(chunk)
}

t.test('a conversation, before listen()', async (t) => {
  for (const options of [{}, { https: TLS }, { http2: true, https: { ...TLS, allowHTTP1: true } }]) {
    const app = await make(t, (app) => {
      app.post('/upper', { duplex: true }, async function * (request, reply) {
        t.equal(request.protocol, 'https' in options ? 'https' : 'http')
        t.equal(reply.duplex.framing.request, 'chunked')
        for await (const chunk of reply.header('x-ip', request.ip).duplex) yield String(chunk).toUpperCase()
        reply.duplex.setTrailers({ 'x-sum': reply.duplex.trailers['x-sum'] })
      })
    }, { fastify: options })
    const client = await app.injectDuplex({ method: 'POST', url: '/upper', remoteAddress: '::1' })
    t.equal(await say(client, 'one'), 'ONE')
    t.match(await client.response, { statusCode: 200, statusMessage: 'OK', httpVersion: '1.1', headers: { 'x-ip': '::1', 'transfer-encoding': 'chunked' }, informational: [] })
    t.equal(await say(client, 'two'), 'TWO')
    t.strictSame({ ...client.trailers }, {})
    client.setTrailers({ 'X-Sum': 42 }).end()
    t.equal(await text(client), '')
    t.strictSame({ ...client.trailers }, { 'x-sum': '42' })
  }
})

t.test('requests of every kind', async (t) => {
  const app = await make(t, (app) => {
    app.all('/', { duplex: true }, async (request, reply) => {
      const body = await text(reply.duplex)
      return { method: request.method, url: request.url, type: request.headers['content-type'], cookie: request.headers.cookie, host: request.host, framing: reply.duplex.framing.request, body }
    })
    app.get('/cookies', { duplex: true }, async function * (request, reply) {
      reply.duplex.writeInformation(103, { link: '</a>' })
      reply.header('set-cookie', ['a=1', 'b=2'])
      yield 'a'
    })
    app.get('/plain', async () => 'plain')
  })
  const result = async (options: Parameters<FastifyInstance['injectDuplex']>[0]): Promise<unknown> => JSON.parse(await text(await app.injectDuplex(options)))
  t.match(await result('/?a=1'), { method: 'GET', url: '/?a=1', host: 'localhost', framing: 'none', body: '' })
  t.match(await result({ path: 'http://example.com/', query: { b: '2' } }), { url: '/?b=2', host: 'example.com' })
  t.match(await result({ method: 'post', url: '/?a=1', query: 'b=2', cookies: { c: '3', d: '4' }, payload: 'text' }), { url: '/?a=1&b=2', cookie: 'c=3; d=4', framing: 'length', body: 'text' })
  t.match(await result({ method: 'PUT', url: '/', payload: Buffer.from('bytes'), headers: { Host: 'b', 'Content-Type': 'x/y' } }), { host: 'b', type: 'x/y', body: 'bytes' })
  t.match(await result({ method: 'POST', url: '/', payload: { a: 1 } }), { type: 'application/json', body: '{"a":1}' })
  t.match(await result({ method: 'POST', url: '/', payload: Readable.from(['a', 'b']) }), { framing: 'chunked', body: 'ab' })
  t.match(await result({ method: 'GET', url: '/', payload: (async function * () { yield 'c' })() }), { framing: 'chunked', body: 'c' })
  t.match(await result({ method: 'POST', url: '/', headers: { 'transfer-encoding': 'chunked' }, payload: 'd' }), { framing: 'chunked', body: 'd' })
  t.match(await result({ method: 'POST', url: '/', httpVersion: '1.0', payload: 'e' }), { framing: 'length', body: 'e' })
  const cookies = await app.injectDuplex('/cookies')
  t.equal(await text(cookies), 'a')
  t.match(await cookies.response, { headers: { 'set-cookie': ['a=1', 'b=2'] }, informational: [{ statusCode: 103, headers: { link: '</a>' } }] })
  t.equal(await text(await app.injectDuplex('/plain')), 'plain', 'ordinary routes too')
  t.equal((await (await app.injectDuplex('/none')).response).statusCode, 404)

  await t.rejects(app.injectDuplex({}), { code: 'FST_ERR_DUPLEX_OPTION' })
  const client = await app.injectDuplex('/plain')
  for (const [name, value] of Object.entries({ playload: 'a', body: 'a', payloadAsStream: true, constructor: 1, httpVersion: '1.2', payload: 5 })) {
    const wrong = { method: 'POST', url: '/', [name]: value }
    const error = { code: 'FST_ERR_DUPLEX_OPTION', message: new RegExp(`"${name}"`) }
    await t.rejects(app.injectDuplex(wrong as {}), error)
    t.throws(() => client.next(wrong as {}), error)
  }
  await t.rejects(app.injectDuplex(JSON.parse('{"url":"/","__proto__":"/"}')), { code: 'FST_ERR_DUPLEX_OPTION' })
  for (const payload of [null, true, Symbol('a'), 1n]) await t.rejects(app.injectDuplex({ method: 'POST', url: '/', payload: payload as never }), { code: 'FST_ERR_DUPLEX_OPTION', message: /"payload"/ })
  t.equal(await text(client.next({ url: '/plain', method: undefined, headers: undefined, query: undefined, payload: undefined, httpVersion: undefined })), 'plain')
  await t.rejects(app.injectDuplex({ method: 'POST', url: '/', httpVersion: '1.0' }), { code: 'FST_ERR_DUPLEX_OPTION' })
  await t.rejects(app.injectDuplex({ url: '/', headers: { a: 'b\r\n' } }), { code: 'FST_ERR_DUPLEX_FIELD' })
  await t.rejects(app.injectDuplex({ url: '/', headers: { 'content-length': 1, 'transfer-encoding': 'chunked' } }), { code: 'FST_ERR_DUPLEX_FRAMING' })
})

t.test('several exchanges on one connection', async (t) => {
  const app = await make(t, (app) => {
    app.post('/', { duplex: true }, echo)
    app.get('/close', { duplex: true }, (request, reply) => reply.header('connection', 'close').duplex.end('bye'))
  })
  const first = await app.injectDuplex({ method: 'POST', url: '/' })
  const second = first.next({ method: 'POST', url: '/', payload: 'second' })
  const third = second.next({ method: 'POST', url: '/' })
  third.write('third')
  t.equal(await say(first, 'first'), 'first')
  first.end()
  t.equal(await text(first), '')
  t.equal(await text(second), 'second')
  third.end()
  t.equal(await text(third), 'third')
  t.equal(third.socket, first.socket)
  const last = third.next({ url: '/close' })
  const none = last.next({ url: '/close' })
  t.equal(await text(last), 'bye')
  await t.rejects(none.response, { code: 'FST_ERR_DUPLEX_TRUNCATED' })
  await t.rejects(none.next({ url: '/close' }).response, { code: 'FST_ERR_DUPLEX_ABORTED' })
})

t.test('two apps at once', async (t) => {
  const apps = await Promise.all(['a', 'b'].map((name) => make(t, (app) => {
    app.post('/', { duplex: true }, async function * (request, reply) {
      for await (const chunk of reply.duplex) yield `${name}${chunk}`
    })
  })))
  const clients = await Promise.all(apps.map((app) => app.injectDuplex({ method: 'POST', url: '/' })))
  t.strictSame(await Promise.all(clients.map((client) => say(client, '1'))), ['a1', 'b1'])
  for (const client of clients) client.end()
  t.strictSame(await Promise.all(clients.map((client) => text(client))), ['', ''])
})

t.test('half-close, abort, raw bytes, timeout', async (t) => {
  const seen: string[] = []
  const app = await make(t, (app) => {
    app.addHook('onRequestAbort', (request, done) => { seen.push('abort'); done() })
    app.post('/', { duplex: true }, async (request, reply) => {
      try {
        await echo(request, reply)
      } catch (error) {
        seen.push((error as { code: string }).code)
        throw error
      }
    })
    app.post('/cut', { duplex: true }, async function * () {
      yield 'a'
      await immediate()
      throw new Error('cut')
    })
    app.post('/cut-before', { duplex: true }, (request) => { request.socket.destroy() })
    app.get('/until-close', { duplex: true }, async function * (request) {
      request.socket.setNoDelay().setKeepAlive()
      yield 'a'
      await immediate()
      throw new Error('until close')
    })
    app.post('/idle', { duplex: { idleTimeout: 1 } }, echo)
    app.post('/length', { duplex: true }, async (request, reply) => text(reply.duplex))
  })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  t.equal(await say(client, 'a'), 'a')
  client.destroy()
  while (seen.length < 2) await new Promise((resolve) => setImmediate(resolve))
  t.strictSame(seen.sort(), ['FST_ERR_DUPLEX_TRUNCATED', 'abort'])

  const half = await app.injectDuplex({ method: 'POST', url: '/' })
  half.socket.end('5\r\nhello\r\n0\r\n\r\n')
  t.equal(await text(half), 'hello', 'the client has ended its side of the connection')

  const cut = await app.injectDuplex({ method: 'POST', url: '/cut' })
  await t.rejects(text(cut), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
  const untilClose = await app.injectDuplex({ url: '/until-close', httpVersion: '1.0' })
  t.strictSame({ ...untilClose.trailers }, {})
  await t.rejects(text(untilClose), { code: 'FST_ERR_DUPLEX_ABORTED', cause: { code: 'ECONNRESET' } })
  const before = await app.injectDuplex({ method: 'POST', url: '/cut-before' })
  await t.rejects(before.response, { code: 'FST_ERR_DUPLEX_TRUNCATED' })
  const awake = setInterval(() => {}, 1000) // timeouts in memory keep no process alive, as those of sockets do not
  t.teardown(() => clearInterval(awake))
  const idle = await app.injectDuplex({ method: 'POST', url: '/idle' })
  t.match(await idle.response, { statusCode: 408 })

  app.server.timeout = 1000
  t.equal((await (await app.injectDuplex({ url: '/nowhere' })).response).statusCode, 404)
  const raw = await app.injectDuplex({ method: 'POST', url: '/' })
  raw.socket.write('nonsense')
  t.match(await (await raw.response).statusCode, 400)
  const source = await app.injectDuplex({ method: 'POST', url: '/', payload: Readable.from((async function * () { yield 'a'; throw new Error('no more') })()) })
  await t.rejects(text(source), { message: 'no more' })
  const long = await app.injectDuplex({ method: 'POST', url: '/length', headers: { 'content-length': 3 } })
  long.write('four')
  await t.rejects(long.response, { code: 'FST_ERR_DUPLEX_LENGTH' })
  const nothing = await app.injectDuplex({ method: 'POST', url: '/' })
  nothing.destroy()
  await t.rejects(nothing.response, { code: 'FST_ERR_DUPLEX_ABORTED' })
})

t.test('backpressure is felt at both ends', async (t) => {
  let server!: FastifyReply['duplex']
  const app = await make(t, (app) => {
    app.post('/', { duplex: true }, (request, reply) => {
      server = reply.duplex
      server.flushHeaders()
    })
  })
  const chunk = Buffer.alloc(100_000, 'x')
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  await client.response
  for (const [from, to] of [[client, server], [server, client]]) {
    let sent = 0
    while (from.write(chunk)) sent += chunk.length
    t.equal(from.writableNeedDrain, true)
    sent += chunk.length
    from.end()
    t.equal((await text(to)).length, sent)
  }
  t.equal(chunk.every((byte) => byte === 120), true, 'the bytes of the writer are not touched')
})

t.test('responses that are wrong', async (t) => {
  for (const [head, code] of [['nonsense\r\n\r\n', 'HEAD'], ['HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n', 'FRAMING'], ['HTTP/1.1 200 OK\r\nset-cookie a\r\n\r\n', 'HEAD'], ['HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx', 'CHUNK'], ['HTTP/1.1 200 OK\r\n\r\nno end', null]]) {
    const app = await make(t, (app) => {
      app.get('/', (request, reply) => { request.socket.end(head as string) })
    })
    const client = await app.injectDuplex('/')
    if (code === null) t.equal(await text(client), 'no end')
    else await t.rejects((code === 'CHUNK' ? text(client) : client.response) as Promise<unknown>, { code: `FST_ERR_DUPLEX_${code}` })
  }
})

t.test('headers and trailers equal plain objects, whatever their names', async (t) => {
  const trailers: unknown[] = []
  const lines = '__proto__: 1\r\n__proto__: 2\r\nconstructor: 3\r\ntoString: 4\r\na: 5\r\nA: 6\r\n'
  const fields = JSON.parse('{"__proto__":"1, 2","constructor":"3","tostring":"4","a":"5, 6"}')
  const app = await make(t, (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      await text(reply.duplex)
      trailers.push(reply.duplex.trailers)
      request.socket.write(`HTTP/1.1 103 Early Hints\r\n${lines}\r\n`)
      request.socket.end(`HTTP/1.1 200 OK\r\n${lines}transfer-encoding: chunked\r\n\r\n0\r\n${lines}\r\n`)
    })
    app.get('/fields', async ({ raw: { rawHeaders } }) => {
      const entries = rawHeaders.flatMap((name, i) => i % 2 === 0 && ['__proto__', 'constructor', 'a'].includes(name) ? [[name, rawHeaders[i + 1]]] : [])
      return Object.fromEntries(entries)
    })
    app.get('/without', { duplex: true }, async (request, reply) => { trailers.push(reply.duplex.trailers); reply.duplex.end() })
  })
  const client = await app.injectDuplex({ method: 'POST', url: '/' })
  client.socket.write(`0\r\n${lines}\r\n`)
  const { headers, informational } = await client.response
  await text(client)
  const without = await app.injectDuplex('/without')
  await text(without)
  const inherited = JSON.parse('{"__proto__":"1","Constructor":"2","A":"3"}')
  t.match(await text(await app.injectDuplex({ url: '/fields', headers: inherited })), /{"__proto__":"1","constructor":"2","a":"3"}/)
  for (const [what, seen, expected] of [
    ['headers', headers, { ...fields, 'transfer-encoding': 'chunked' }],
    ['informational', informational[0].headers, fields],
    ['trailers of the response', client.trailers, fields],
    ['trailers of the request', trailers[0], fields],
    ['no trailers of the response', without.trailers, {}],
    ['no trailers of the request', trailers[1], {}]
  ] as const) t.doesNotThrow(() => assert.deepEqual(seen, expected), what)
})

t.test('a server that speaks HTTP/2 alone', async (t) => {
  const app = await make(t, () => {}, { fastify: { http2: true } })
  await t.rejects(app.injectDuplex('/'), { code: 'FST_ERR_DUPLEX_INJECT' })
})
