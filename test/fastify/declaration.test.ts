// `duplex: true` on a route, seen from the app and from the client: everything Fastify gives stays, before the head an
// answer is an ordinary answer, and after it an error cuts the response off.

import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { satisfies } from 'semver'
import t from 'tap'
import { hooksOf, missingFromFastify, otherServers } from '../../lib/fastify-internals.ts'
import duplex from '../../lib/index.ts'
import { otherRuntime } from '../../lib/runtime.ts'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { GET, OPEN, chunk, chunked, serve } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.type(request.headers['content-type'] ?? 'application/octet-stream')
  await pipeline(reply.duplex, reply.duplex)
}

const CUT_OFF = { code: 'FST_ERR_DUPLEX_TRUNCATED' }

t.test('declared by an onRoute hook that was there before', async (t) => {
  const declare = (app: FastifyInstance): void => {
    app.addHook('onRoute', (route) => { if (route.url === '/generator') Object.assign(route, { duplex: true }) })
  }
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/generator', async function * (request: FastifyRequest, reply: FastifyReply) {
      for await (const piece of reply.duplex) yield `<${piece}>`
      yield '.'
    } as never)
  }, {}, {}, declare)
  const wire = await connect()
  t.match(await wire.request(chunked('/generator', 'one')), { statusCode: 200, body: '<one>.' })
  t.match(await wire.request(chunked('/generator', 'two')), { statusCode: 200, body: '<two>.' })
})

t.test('declared in every way', async (t) => {
  const { app, connect } = await serve(t, 'tcp', async (app) => {
    app.addHttpMethod('SEARCH', { hasBody: true })
    app.route({ method: ['PUT', 'SEARCH'], url: '/two/:id', duplex: true, handler: echo })
    app.all('/all', { duplex: true }, echo)
    app.post('/versioned', { duplex: true, constraints: { version: '1.0.0' } }, echo)
    app.post('/versioned', async () => 'ordinary')
    app.post('/options', { duplex: { idleTimeout: 1000 } }, echo)
    app.post('/no', { duplex: false }, async () => 'ordinary')
    await app.register(async (child) => {
      child.post('/echo', { duplex: true }, echo)
      await child.register(async (grandchild) => {
        grandchild.post('/', { duplex: true }, echo)
      }, { prefix: '/deep' })
    }, { prefix: '/child' })
  })
  const wire = await connect()
  const body = '\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
  t.equal((await wire.request(`PUT /two/1 HTTP/1.1${body}`)).body, 'abc')
  t.equal((await wire.request(`SEARCH /two/1 HTTP/1.1${body}`)).body, 'abc')
  for (const method of app.supportedMethods.filter((method) => method !== 'HEAD')) {
    t.equal((await wire.request(`${method} /all HTTP/1.1${body}`)).body, 'abc', method)
  }
  t.equal((await wire.request(`POST /versioned HTTP/1.1\r\nAccept-Version: 1.x${body}`)).body, 'abc')
  t.equal((await wire.request(`POST /versioned HTTP/1.1\r\nContent-Type: text/plain${body}`)).body, 'ordinary')
  t.equal((await wire.request(`POST /options HTTP/1.1${body}`)).body, 'abc')
  t.equal((await wire.request(`POST /no HTTP/1.1\r\nContent-Type: text/plain${body}`)).body, 'ordinary')
  t.equal((await wire.request(`POST /child/echo HTTP/1.1${body}`)).body, 'abc')
  t.equal((await wire.request(`POST /child/deep HTTP/1.1${body}`)).body, 'abc')
})

t.test('no content-type parser runs, whatever the content-type and the method', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.removeAllContentTypeParsers()
    app.all('/', { duplex: true }, async (request, reply) => {
      t.equal(request.body, undefined)
      await echo(request, reply)
    })
  })
  const wire = await connect()
  // Below 5.11 Fastify has no QUERY.
  const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'QUERY'].filter((method) => app.supportedMethods.includes(method))
  for (const method of methods) {
    for (const type of ['', 'Content-Type: application/json\r\n', 'Content-Type: no type\r\n', 'Content-Type: text/x\r\n']) {
      const response = await wire.request(`${method} / HTTP/1.1\r\nHost: a\r\n${type}Content-Length: 2\r\n\r\n{{`)
      t.match(response, { statusCode: 200, body: '{{' }, `${method} ${type}`)
    }
  }
})

t.test('all hooks run, with the true method and headers', async (t) => {
  const seen: string[] = []
  const hook = (name: string) => async (request: FastifyRequest) => {
    seen.push(`${name} ${request.method} ${request.headers['content-type']} ${request.body}`)
  }
  const { connect } = await serve(t, 'tcp', (app) => {
    for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'onResponse'] as const) app.addHook(name as 'onRequest', hook(name))
    app.post('/', { duplex: true, onRequest: hook('own onRequest'), preParsing: [hook('own preParsing')], preValidation: hook('own preValidation'), onResponse: hook('own onResponse') }, async (request, reply) => {
      await hook('handler')(request)
      await echo(request, reply)
    })
    app.addHook('onSend', async () => { seen.push('onSend') })
  })
  const wire = await connect()
  await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nab')
  await wire.request(chunked('/', 'a').replace('Host', 'Content-Type: x\r\nHost'))
  const order = ['onRequest', 'own onRequest', 'preParsing', 'own preParsing', 'preValidation', 'own preValidation', 'preHandler', 'handler', 'onResponse', 'own onResponse']
  t.strictSame(seen, [...order.map((name) => `${name} POST text/x undefined`), ...order.map((name) => `${name} POST x undefined`)])
})

t.test('params, querystring and headers are validated', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/:id', {
      duplex: true,
      schema: {
        params: { type: 'object', properties: { id: { type: 'integer' } } },
        querystring: { type: 'object', properties: { n: { type: 'integer', default: 7 } } },
        headers: { type: 'object', required: ['x-key'] }
      }
    }, async (request, reply) => {
      const { id } = request.params as { id: number }
      const { n } = request.query as { n: number }
      await once(reply.duplex.end(`${typeof id} ${n}`), 'finish')
    })
  })
  const wire = await connect()
  t.equal((await wire.request('POST /1 HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n')).body, 'number 7')
  t.match(await wire.request('POST /x HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n'), { statusCode: 400, body: /params\/id must be integer/ })
  t.match(await wire.request('POST /1?n=x HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n'), { statusCode: 400, body: /querystring\/n/ })
  t.match(await wire.request('POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'), { statusCode: 400, body: /x-key/, fields: { connection: 'keep-alive' } })
  t.equal((await wire.request('POST /2?n=2 HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n')).body, 'number 2', 'and the connection goes on')
})

t.test('what cannot be declared', async (t) => {
  const app = Fastify()
  await app.register(duplex)
  t.throws(() => app.post('/', { duplex: true, schema: { body: {} } }, echo), { code: 'FST_ERR_DUPLEX_BODY_SCHEMA' })
  for (const options of [{ idleTimeout: -1 }, { idleTimeout: 1.5 }, { idleTimeout: 2 ** 31 }, { idleTimeout: '1' }, { bodyLimit: 0 }, { bodyLimit: Infinity }, { drainTimeout: 0 }, { highWaterMark: NaN }, { nonsense: 1 }]) {
    t.throws(() => app.post('/', { duplex: options as {} }, echo), { code: 'FST_ERR_DUPLEX_OPTION' }, JSON.stringify(options))
    const wrong = Fastify()
    wrong.register(duplex, options as {})
    await t.rejects(Promise.resolve(wrong.ready()), { code: 'FST_ERR_DUPLEX_OPTION' })
  }
  app.post('/undefined', { duplex: { idleTimeout: undefined } }, echo)
})

t.test('reply.duplex on an ordinary route', async (t) => {
  const { app } = await serve(t, 'tcp', (app) => {
    app.get('/', (request, reply) => reply.duplex.end())
  })
  const response = await app.inject('/')
  t.match(response.json(), { statusCode: 500, code: 'FST_ERR_DUPLEX_NOT_ENABLED' })
})

t.test('until the first byte, answers are ordinary answers', async (t) => {
  const { app, connect, log } = await serve(t, 'tcp', (app) => {
    app.setErrorHandler((error: Error, request, reply) => reply.code(418).send(`handled ${error.message}`))
    const route = (url: string, handler: (request: FastifyRequest, reply: FastifyReply) => unknown): void => {
      app.post(url, { duplex: true }, handler)
    }
    route('/throw', () => { throw new Error('thrown') })
    route('/reject', async () => { throw new Error('rejected') })
    route('/return', async () => ({ a: 1 }))
    route('/return-now', () => 'now')
    route('/nothing', async () => {})
    route('/send', (request, reply) => { reply.code(403).send('no') })
    route('/return-reply', async (request, reply) => reply.code(202).send('yes'))
    route('/read-then-return', async (request, reply) => {
      let size = 0
      for await (const piece of reply.duplex) size += piece.length
      return { size }
    })
    route('/read-then-throw', async (request, reply) => {
      const [piece] = await once(reply.duplex, 'data')
      throw new Error(`after ${piece}`)
    })
    route('/generator-throws', async function * () { throw new Error('generated') })
    route('/destroy', async (request, reply) => { reply.duplex.destroy(new Error('destroyed')); throw new Error('rejected') })
    route('/destroy-only', (request, reply) => { reply.duplex.destroy() })
    route('/destroy-with', (request, reply) => { reply.duplex.destroy(new Error('why')) })
    app.post('/hook', { duplex: true, preHandler: (request, reply, done) => { reply.duplex.destroy(new Error('in a hook')); setImmediate(done) } }, () => {})
    app.post('/own', { duplex: true, errorHandler: (error, request, reply) => { reply.send(`own ${error.message}`) } }, () => { throw new Error('thrown') })
    app.post('/limited', { duplex: true, onRequest: async () => { throw new Error('unauthorized') } }, echo)
  })
  const expected: [string, number, string][] = [
    ['/throw', 418, 'handled thrown'],
    ['/reject', 418, 'handled rejected'],
    ['/return', 200, '{"a":1}'],
    ['/return-now', 200, 'now'],
    ['/nothing', 200, ''],
    ['/send', 403, 'no'],
    ['/return-reply', 202, 'yes'],
    ['/read-then-return', 200, '{"size":11}'],
    ['/read-then-throw', 418, 'handled after hello'],
    ['/generator-throws', 418, 'handled generated'],
    ['/destroy', 418, 'handled rejected'],
    ['/destroy-only', 418, 'handled The exchange was destroyed before the response ended'],
    ['/destroy-with', 418, 'handled why'],
    ['/hook', 418, 'handled in a hook'],
    ['/own', 200, 'own thrown'],
    ['/limited', 418, 'handled unauthorized']
  ]
  const wire = await connect()
  for (const [url, statusCode, body] of expected) {
    // The first chunk alone in the first segment: what is left of the body comes after the answer.
    wire.send(OPEN(url) + chunk('hello'))
    if (url === '/read-then-return') wire.send(chunk(' world') + '0\r\n\r\n')
    t.match(await wire.response(), { statusCode, body, fields: { connection: 'keep-alive' } }, url)
    if (url !== '/read-then-return') wire.send(chunk(' world') + '0\r\n\r\n')
  }
  const answered = log.filter((line) => line.msg === 'request completed').map((line) => line.res!.statusCode)
  t.strictSame(answered, expected.map(([, statusCode]) => statusCode), 'each is logged once, with its status')

  for (const [url, statusCode, payload] of expected) {
    const response = await app.inject({ method: 'POST', url, payload: Readable.from(['hello', ' world']) })
    t.match(response, { statusCode, payload }, `${url} injected`)
  }
})

t.test('handlers of every kind', async (t) => {
  const { connect, log } = await serve(t, 'tcp', (app) => {
    app.post('/upper', { duplex: true }, async function * (request, reply) {
      for await (const piece of reply.duplex) yield piece.toString().toUpperCase()
    })
    app.post('/promised-iterable', { duplex: true }, async (request, reply) => Readable.from(['a', 'b']))
    app.post('/now', { duplex: true }, (request, reply) => reply.duplex.end('now'))
    app.post('/async-end', { duplex: true }, async (request, reply) => reply.duplex.end('then'))
    app.post('/async-write', { duplex: true }, async (request, reply) => {
      reply.duplex.write('a')
      setImmediate(() => reply.duplex.end('b'))
    })
    app.post('/return-reply', { duplex: true }, async (request, reply) => {
      reply.duplex.end('x')
      return reply
    })
    app.post('/return-reply-now', { duplex: true }, (request, reply) => {
      reply.duplex.end('x')
      return reply
    })
    app.post('/callbacks', { duplex: true }, (request, reply) => {
      const { duplex } = reply
      duplex.on('data', (piece) => { duplex.write(piece) })
      duplex.on('end', () => { duplex.end() })
    })
    app.post('/break', { duplex: true }, async (request, reply) => {
      for await (const piece of reply.duplex) {
        reply.duplex.write(piece)
        if (piece.length > 0) break
      }
      reply.duplex.end(() => {})
    })
    app.post('/return-duplex', { duplex: true }, async (request, reply) => reply.duplex.end())
  })
  const wire = await connect()
  for (const [url, body] of [['/upper', 'ABC'], ['/promised-iterable', 'ab'], ['/now', 'now'], ['/async-end', 'then'], ['/async-write', 'ab'], ['/return-reply', 'x'], ['/return-reply-now', 'x'], ['/callbacks', 'abc'], ['/break', 'abc'], ['/return-duplex', '']]) {
    t.match(await wire.request(chunked(url, 'abc')), { statusCode: 200, body }, url)
  }
  t.equal(log.filter((line) => line.level > 30).length, 0, 'and nothing to warn about')
})

t.test('the head is what the app and its plugins set', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.addHook('onRequest', async (request, reply) => { reply.header('x-hook', 'a').header('Set-Cookie', 'b') })
    app.post('/', { duplex: true }, async (request, reply) => {
      reply.code(201).header('set-cookie', 'c').raw.setHeader('X-Raw', 'd')
      reply.raw.statusMessage = 'Made'
      reply.raw.sendDate = false
      const { duplex } = reply
      t.match([duplex.headersSent, duplex.framing.response, reply.sent], [false, undefined, false])
      duplex.flushHeaders()
      t.match([duplex.headersSent, duplex.framing.response, reply.sent, reply.raw.headersSent], [true, 'chunked', true, true])
      t.throws(() => duplex.flushHeaders(), { code: 'FST_ERR_DUPLEX_HEAD_SENT' })
      await pipeline(duplex, duplex)
      t.equal(duplex.bytesRead, 3)
      t.equal(duplex.bytesWritten, 3)
      t.equal(duplex.socket, request.socket)
    })
  })
  const wire = await connect()
  wire.send(OPEN('/'))
  const head = await wire.head()
  t.match(head, { statusCode: 201, statusMessage: 'Made', fields: { date: undefined, 'x-hook': 'a', 'x-raw': 'd', 'keep-alive': 'timeout=72' }, headers: { 'set-cookie': ['b', 'c'] } })
  wire.send(chunk('abc') + '0\r\n\r\n')
  t.equal(await wire.body(), 'abc')
})

t.test('what is wrong with the head is still answered', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/own', { duplex: true }, async (request, reply) => { await once(reply.header('transfer-encoding', 'x').duplex.end('a'), 'finish') })
    app.get('/value', { duplex: true }, async (request, reply) => { await once(reply.header('x-a', 'b\r\nc: d').duplex.end('a'), 'finish') })
    app.get('/flush', { duplex: true }, (request, reply) => { reply.header('content-length', 'x').duplex.flushHeaders() })
    app.get('/interim', { duplex: true }, async function * (request, reply) { reply.code(101); yield 'a' })
    app.get('/no-content', { duplex: true }, (request, reply) => { reply.code(204).duplex.end('a') })
    app.head('/head', { duplex: true }, (request, reply) => { reply.duplex.write('a') })
  })
  const wire = await connect()
  t.match(await wire.request(GET('/own')), { statusCode: 500, body: /FST_ERR_DUPLEX_OWN_FIELD/ })
  t.match(await wire.request(GET('/value')), { statusCode: 500, body: /FST_ERR_DUPLEX_FIELD/, fields: { c: undefined } })
  t.match(await wire.request(GET('/flush')), { statusCode: 400, body: /FST_ERR_DUPLEX_FRAMING/ })
  t.match(await wire.request(GET('/interim')), { statusCode: 500, body: /FST_ERR_DUPLEX_UPGRADE/ })
  t.match(await wire.request(GET('/no-content')), { statusCode: 500, body: /FST_ERR_DUPLEX_NO_BODY/ })
  t.match(await wire.request('HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n', 'HEAD'), { statusCode: 500 })
})

t.test('framing of the response', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/length', { duplex: true }, async (request, reply) => { await once(reply.header('content-length', 3).duplex.end('abc'), 'finish') })
    app.get('/more', { duplex: true }, async (request, reply) => { reply.header('content-length', 3).duplex.write('ab'); setImmediate(() => reply.duplex.end('cd')) })
    app.get('/less', { duplex: true }, async (request, reply) => { reply.header('content-length', 3).duplex.end('ab') })
    app.get('/204', { duplex: true }, (request, reply) => { reply.code(204).duplex.end() })
    app.get('/304', { duplex: true }, (request, reply) => { reply.code(304).duplex.end() })
    app.get('/close', { duplex: true }, (request, reply) => { reply.header('connection', 'close').duplex.end('bye') })
    app.get('/generated', { duplex: true }, async function * () { yield 'a' })
    app.get('/empty', { duplex: true }, (request, reply) => { reply.duplex.write(''); reply.duplex.end('') })
  })
  const wire = await connect()
  t.match(await wire.request(GET('/length')), { body: 'abc', fields: { 'content-length': '3', 'transfer-encoding': undefined } })
  t.match(await wire.request(GET('/204')), { statusCode: 204, fields: { 'transfer-encoding': undefined } })
  t.match(await wire.request(GET('/304')), { statusCode: 304 })
  t.match(await wire.request(GET('/empty')), { statusCode: 200, body: '' })
  t.match(await wire.request('HEAD /generated HTTP/1.1\r\nHost: a\r\n\r\n', 'HEAD'), { statusCode: 200 }, 'the HEAD route Fastify adds to a GET route')
  t.match(await wire.request('HEAD /length HTTP/1.1\r\nHost: a\r\n\r\n', 'HEAD'), { statusCode: 500 }, 'has no body to write, which is an error')
  t.match(await wire.request('GET /generated HTTP/1.0\r\n\r\n'), { body: 'a', fields: { 'transfer-encoding': undefined, connection: 'close' } })
  await wire.ended
  const keep = await connect()
  t.match(await keep.request('GET /length HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'), { body: 'abc', fields: { connection: 'keep-alive' } })
  t.match(await keep.request(GET('/close')), { body: 'bye', fields: { connection: 'close' } })
  await keep.ended
  for (const url of ['/more', '/less']) {
    const wrong = await connect()
    await t.rejects(wrong.request(GET(url)), CUT_OFF, url)
  }
})

t.test('a generator is left when nobody takes more of it', async (t) => {
  const piece = Buffer.alloc(65_536, 'x')
  const left: string[] = []
  let done = (): void => {}
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.get('/endless', { duplex: true }, async function * () {
      try {
        while (true) yield piece
      } finally {
        left.push('endless')
        done()
      }
    })
    app.get('/answered', { duplex: true }, async function * (request, reply) {
      const closed = once(reply.duplex, 'close')
      reply.send('by somebody else')
      await closed
      try {
        while (true) yield 'late'
      } finally {
        left.push('answered')
      }
    })
  })
  const wire = await connect()
  const error = logged('Promise errored, but reply.sent = true was set')
  t.equal((await wire.request(GET('/answered'))).body, 'by somebody else')
  t.match(await error, { err: { code: 'FST_ERR_DUPLEX_HEAD_SENT' } })
  wire.send(GET('/endless'))
  await wire.head()
  wire.socket.pause()
  const gone = new Promise<void>((resolve) => { done = resolve })
  wire.socket.destroy()
  await gone
  t.strictSame(left, ['answered', 'endless'])
})

t.test('interim responses', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true }, async function * (request, reply) {
      const { duplex } = reply
      t.equal(duplex.writeInformation(103, { link: '</a.css>' }), request.raw.httpVersionMinor === 1)
      duplex.writeInformation(102)
      for (const status of [101, 200, 99, NaN]) t.throws(() => duplex.writeInformation(status), { code: 'FST_ERR_DUPLEX_STATUS' })
      t.throws(() => duplex.writeInformation(103, { connection: 'x' }), { code: 'FST_ERR_DUPLEX_OWN_FIELD' })
      yield 'a'
      t.throws(() => duplex.writeInformation(103), { code: 'FST_ERR_DUPLEX_HEAD_SENT' })
    })
  })
  const wire = await connect()
  wire.send(GET('/'))
  t.match(await wire.head(), { statusCode: 103, fields: { link: '</a.css>' } })
  t.match(await wire.head(), { statusCode: 102 })
  t.match(await wire.response(), { statusCode: 200, body: 'a' })
  t.match(await wire.request('GET / HTTP/1.0\r\n\r\n'), { statusCode: 200 }, 'not to HTTP/1.0')
})

t.test('trailers both ways', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      for await (const piece of duplex) duplex.write(piece)
      duplex.setTrailers({ 'X-Seen': duplex.trailers['x-sum'], 'x-size': duplex.bytesRead })
      duplex.end()
      t.throws(() => duplex.setTrailers({ a: '1' }), { code: 'FST_ERR_DUPLEX_NO_TRAILERS' })
    })
    app.post('/length', { duplex: true }, async (request, reply) => {
      const { duplex } = reply.header('content-length', 0)
      duplex.flushHeaders()
      t.throws(() => duplex.setTrailers({ a: '1' }), { code: 'FST_ERR_DUPLEX_NO_TRAILERS' })
      duplex.end()
    })
    app.post('/wrong', { duplex: true }, async (request, reply) => reply.duplex.setTrailers({ host: '1' }).end())
  })
  const wire = await connect()
  wire.send(OPEN('/') + chunk('abc') + '0\r\nX-Sum: 42\r\n\r\n')
  t.match(await wire.response(), { body: 'abc', trailers: { 'x-seen': '42', 'x-size': '3' } })
  t.match(await wire.request(chunked('/length')), { statusCode: 200 })
  t.match(await wire.request(chunked('/wrong')), { statusCode: 500, body: /FST_ERR_DUPLEX_FIELD/ })
  t.match(await (await connect()).request('POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc'), { body: 'abc' }, 'a client of HTTP/1.0 is sent none')
})

t.test('requests that are wrong, before the head', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.setErrorHandler((error: Error & { code: string, statusCode: number }, request, reply) => reply.code(error.statusCode).send(error.code))
    app.post('/', { duplex: true }, async (request, reply) => {
      let body = ''
      for await (const piece of reply.duplex) body += piece
      return body
    })
    app.post('/callbacks', { duplex: true }, (request, reply) => {
      reply.duplex.on('data', () => {})
    })
    app.post('/limit', { duplex: true, bodyLimit: 4 }, async (request, reply) => {
      let body = ''
      for await (const piece of reply.duplex) body += piece
      return body
    })
  })
  const head = (fields: string, version = '1.1'): string => `POST / HTTP/${version}\r\nHost: a\r\n${fields}\r\n\r\n`
  const cases: [string, number, string][] = [
    [head('Transfer-Encoding: gzip, chunked'), 501, 'TRANSFER_CODING'],
    [head('Transfer-Encoding: \xe9, chunked'), 400, 'FRAMING'],
    [head('Transfer-Encoding: chunked', '1.0'), 400, 'FRAMING'],
    [head('Content-Length: 9007199254740992'), 400, 'FRAMING'],
    [OPEN('/') + '5\nhello\r\n0\r\n\r\n', 400, 'CHUNK'],
    [OPEN('/') + '5\r\nhello\r\n0\r\nhost: a\r\n\r\n', 400, 'TRAILER'],
    [OPEN('/callbacks') + chunk('hello') + 'x', 400, 'CHUNK'],
    [OPEN('/limit') + chunk('hello'), 413, 'BODY_LIMIT'],
    ['POST /limit HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n', 413, 'BODY_LIMIT']
  ]
  for (const [bytes, statusCode, code] of cases) {
    const wire = await connect()
    t.match(await wire.request(bytes), { statusCode, body: `FST_ERR_DUPLEX_${code}` }, JSON.stringify(bytes))
    if (statusCode === 413) continue
    // Nothing behind a message that could not be framed is a request.
    wire.send(GET('/'))
    await wire.ended
    t.equal(wire.socket.bytesRead > 0, true)
  }
  const wire = await connect()
  t.match(await wire.request(chunked('/limit', 'four')), { statusCode: 200, body: 'four' })
  wire.socket.end(OPEN('/') + chunk('hello').slice(0, -3))
  t.match(await wire.response(), { statusCode: 400, body: 'FST_ERR_DUPLEX_TRUNCATED' }, 'a client that ends its side too early')
})

t.test('requests that turn out wrong after the head', async (t) => {
  const errors: unknown[] = []
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, echo)
    app.post('/callbacks', { duplex: true }, (request, reply) => {
      reply.duplex.on('error', (error) => errors.push(error))
      reply.duplex.pipe(reply.duplex)
    })
    app.post('/limit', { duplex: { bodyLimit: 4 } }, echo)
  })
  const cases: [string, string, string][] = [
    ['/', '5\nhello', 'FST_ERR_DUPLEX_CHUNK'],
    ['/callbacks', 'hello', 'FST_ERR_DUPLEX_CHUNK'],
    ['/', '0\r\nhost: a\r\n\r\n', 'FST_ERR_DUPLEX_TRAILER'],
    ['/limit', chunk('hello'), 'FST_ERR_DUPLEX_BODY_LIMIT']
  ]
  for (const [url, bytes, code] of cases) {
    const wire = await connect()
    wire.send(OPEN(url) + chunk('ok'))
    t.equal((await wire.head()).statusCode, 200)
    t.equal(await wire.content(), 'ok')
    const line = logged('request errored')
    wire.send(bytes + GET(url))
    await t.rejects(wire.body(), CUT_OFF, 'cut off without a last chunk')
    t.match(await line, { level: 50, err: { code }, res: { statusCode: 200 } }, 'the log says why')
  }
  t.match(errors, [{ code: 'FST_ERR_DUPLEX_CHUNK' }])
})

t.test('handlers that fail after the head', async (t) => {
  const hooked: string[] = []
  const { connect, logged, log } = await serve(t, 'tcp', (app) => {
    app.addHook('onError', (request, reply, error, done) => { hooked.push(`callback ${error.message}`); done() })
    app.addHook('onError', async (request, reply, error) => { hooked.push(`async ${error.message}`) })
    app.addHook('onError', () => { throw new Error('of no consequence') })
    app.addHook('onResponse', (request, reply, done) => { hooked.push('response'); done() })
    app.post('/async', { duplex: true }, async (request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('async')
    })
    app.post('/now', { duplex: true }, (request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('now')
    })
    app.post('/generator', { duplex: true }, async function * () {
      yield 'a'
      throw new Error('generator')
    })
    app.post('/destroy', { duplex: true }, (request, reply) => {
      reply.duplex.write('a', () => reply.duplex.destroy())
    })
    app.post('/after', { duplex: true }, async (request, reply) => {
      await once(reply.duplex.end('done'), 'finish')
      throw new Error('after')
    })
    app.get('/until-close', { duplex: true }, async function * () {
      yield 'a'
      throw new Error('until close')
    })
    app.post('/write-after-end', { duplex: true }, (request, reply) => {
      reply.duplex.end('a')
      reply.duplex.write('b')
    })
    app.post('/type', { duplex: true }, (request, reply) => {
      reply.duplex.flushHeaders()
      reply.duplex.write(5)
    })
  })
  for (const message of ['async', 'now', 'generator', 'destroy']) {
    const wire = await connect()
    const line = logged('request errored')
    await t.rejects(wire.request(OPEN(`/${message}`)), CUT_OFF, message)
    t.match(await line, { err: message === 'destroy' ? { code: 'FST_ERR_DUPLEX_DESTROYED' } : { message } })
  }
  t.strictSame(hooked, ['async', 'now', 'generator', 'The exchange was destroyed before the response ended'].flatMap((message) => [`callback ${message}`, `async ${message}`, 'response']))
  const wire = await connect()
  const after = logged('duplex handler failed after its response')
  t.match(await wire.request(chunked('/after')), { body: 'done' })
  t.match(await after, { level: 50, err: { message: 'after' } })
  for (const [url, code] of [['/type', 'ERR_INVALID_ARG_TYPE'], ['/write-after-end', 'ERR_STREAM_WRITE_AFTER_END']]) {
    const line = logged('request errored')
    const wrong = await connect()
    wrong.send(chunked(url))
    t.match(await line, { err: { code } }, 'an error of the stream itself')
    await wrong.ended
  }
  const old = await connect()
  old.send('GET /until-close HTTP/1.0\r\n\r\n')
  const [error] = await once(old.socket, 'error')
  t.equal(error.code, 'ECONNRESET', 'a reset, where a FIN would be the end of the body')
  t.equal(log.some((line) => line.level >= 60), false)
})

const version = Fastify().version
// Its error handler writes a second head, also on an ordinary route: uncaught, which ends the process.
const writesTwoHeads = satisfies(version, '>=5.12.8 <6') ? false : `a fault of Fastify ${version}, which 5.12.8 has mended`

t.test('a head that a handler has written by hand', { skip: writesTwoHeads }, async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (request, reply) => {
      reply.raw.writeHead(200)
      reply.duplex.write('a')
    })
  })
  const wire = await connect()
  wire.send(chunked('/'))
  await wire.ended
  t.equal((await (await connect()).request(GET('/none'))).statusCode, 404)
})

t.test('what a second pair of eyes found', async (t) => {
  const seen: unknown[] = []
  let wake = (): void => {}
  const asleep = (): Promise<void> => new Promise((resolve) => { wake = resolve })
  const { app, connect, logged } = await serve(t, 'tcp', (app) => {
    app.addHook('onResponse', async (request) => {
      request.signal.addEventListener('abort', () => {})
      request.raw.on('close', () => {})
    })
    app.addHook('onSend', async () => { await new Promise((resolve) => setImmediate(resolve)) })
    const route = (url: string, handler: (request: FastifyRequest, reply: FastifyReply) => unknown, options = {}): void => {
      app.post(url, { duplex: true, ...options }, handler)
    }
    route('/late', async (request, reply) => {
      await asleep()
      await pipeline(reply.duplex, reply.duplex).catch((error) => seen.push(error.code))
      seen.push('done')
      throw new Error('something else')
    })
    route('/after-answer', (request, reply) => { reply.code(403).send('no') }, {
      onResponse: async (request: FastifyRequest, reply: FastifyReply) => { seen.push(reply.duplex.destroyed) }
    })
    route('/callbacks', async (request, reply) => {
      const { duplex } = reply.header('keep-alive', 'x')
      await new Promise<void>((resolve, reject) => {
        if (request.headers['x-end']) duplex.end('x', (error?: Error | null) => error ? reject(error) : resolve())
        else duplex.write('x', (error) => error ? reject(error) : resolve())
      })
    })
    route('/no-callback', (request, reply) => { reply.header('keep-alive', 'x').duplex.end('x') })
    route('/empty', async (request, reply) => {
      reply.duplex.write('a')
      await new Promise((resolve) => setImmediate(resolve))
      reply.duplex.write('')
      reply.duplex.end()
    })
    route('/many', (request, reply) => {
      for (let i = 0; i < 200_000; i++) reply.duplex.write('x')
      reply.duplex.end()
    })
    route('/return-reply', async (request, reply) => {
      reply.duplex.on('data', () => {})
      return reply
    })
    route('/destroy-quietly', async (request, reply) => { reply.duplex.destroy() })
    route('/flush-after', async (request, reply) => {
      reply.duplex.destroy()
      reply.duplex.flushHeaders()
    })
    route('/flush-why', async (request, reply) => {
      reply.duplex.destroy(new Error('why'))
      reply.duplex.flushHeaders()
    })
    route('/object', async function * () { yield { a: 1 } })
    route('/number', async (request, reply) => { reply.duplex.write(1) })
    route('/two-answers', (request, reply) => {
      reply.send('ordinary')
      reply.duplex.end('duplex')
    })
    route('/own-answer', (request, reply) => {
      reply.duplex.on('error', () => reply.code(422).send('mine'))
      reply.duplex.resume()
    })
    app.get('/slow', async () => { await asleep(); return 'slow' })
    route('/fails', async (request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('fails')
    })
  })
  const wire = await connect()
  const lost = await connect()
  const errored = logged('request errored')
  lost.send(OPEN('/late'))
  while (wake.length === 0) await new Promise((resolve) => setImmediate(resolve))
  lost.socket.resetAndDestroy()
  await errored
  wake()
  while (seen.at(-1) !== 'done') await new Promise((resolve) => setImmediate(resolve))
  // Node 24 has a code of its own for a pipeline from a stream that is destroyed.
  t.match(seen, [/^(FST_ERR_DUPLEX_ABORTED|ERR_STREAM_UNABLE_TO_PIPE)$/, 'done'], 'a client that left before reply.duplex was opened')
  t.match(await wire.request(chunked('/after-answer')), { statusCode: 403 })
  t.equal(seen.at(-1), true, 'reply.duplex after the answer is at its end')

  for (const end of ['', 'X-End: 1\r\n']) {
    t.match(await wire.request(chunked('/callbacks').replace('\r\n', `\r\n${end}`)), { statusCode: 500, body: /OWN_FIELD/ }, 'callbacks are called')
  }
  t.match(await wire.request(chunked('/no-callback')), { statusCode: 500, body: /OWN_FIELD/ })
  t.equal((await wire.request(chunked('/many'))).body.length, 200_000)
  t.match(await wire.request(chunked('/destroy-quietly')), { statusCode: 500, body: /DESTROYED/ })
  t.match(await wire.request(chunked('/flush-after')), { statusCode: 500, body: /DESTROYED/ })
  t.match(await wire.request(chunked('/flush-why')), { statusCode: 500, body: /why/ })
  t.match(await wire.request(chunked('/object')), { statusCode: 500, body: /ERR_INVALID_ARG_TYPE/ })
  t.match(await wire.request(chunked('/number')), { statusCode: 500, body: /ERR_INVALID_ARG_TYPE/ })
  t.match(await wire.request(chunked('/two-answers')), { statusCode: 200, body: 'ordinary' }, 'the first answer is the answer')
  t.match(await (await connect()).request(OPEN('/return-reply') + 'x'), { statusCode: 400, body: /CHUNK/ })
  t.match(await (await connect()).request(OPEN('/own-answer') + 'x'), { statusCode: 422, body: 'mine' })
  wire.send(GET('/slow') + chunked('/empty') + GET('/slow'))
  const slow = wire.response()
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
  wake()
  t.equal((await slow).body, 'slow')
  t.equal((await wire.response()).body, 'a', 'an empty write does not end the body twice')
  wake()
  t.equal((await wire.response()).body, 'slow')
  wire.send(GET('/slow') + OPEN('/fails'))
  await logged('request errored')
  wake()
  t.equal((await wire.response()).body, 'slow', 'an exchange that fails in the queue leaves the response before it alone')
  await wire.ended
  t.equal(app.server.listening, true)
})

t.test('a preParsing hook that a later plugin puts behind ours', async (t) => {
  const methods: string[] = []
  const { connect } = await serve(t, 'tcp', async (app) => {
    app.addHook('onRoute', (route) => {
      route.preParsing = [route.preParsing ?? []].flat().concat(async (request: FastifyRequest) => { methods.push(request.method) })
    })
    app.post('/', { duplex: true }, echo)
  })
  const wire = await connect()
  for (let i = 0; i < 2; i++) {
    t.match(await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}'), { statusCode: 200, body: '{}' })
  }
  t.strictSame(methods, ['POST', 'POST'])
})

t.test('an onResponse hook that a later plugin puts behind ours', async (t) => {
  const ran: string[] = []
  const { connect, logged } = await serve(t, 'tcp', async (app) => {
    app.addHook('onRoute', (route) => {
      route.onResponse = [route.onResponse ?? []].flat().concat(async (request: FastifyRequest) => { ran.push(request.url) })
    })
    app.post('/', { duplex: true }, echo)
    app.post('/fails', { duplex: true }, async (request, reply) => {
      await pipeline(reply.duplex, reply.duplex, { end: false })
      throw new Error('after the head')
    })
  })
  const wire = await connect()
  const completed = logged('request completed')
  t.equal((await wire.request(chunked('/', 'a'))).body, 'a')
  await completed
  t.strictSame(ran, ['/'])
  const errored = logged('request errored')
  wire.send(chunked('/fails', 'a'))
  await wire.head()
  await t.rejects(wire.body(), CUT_OFF)
  await errored
  t.strictSame(ran, ['/', '/fails'], { todo: 'Fastify runs no hook behind the one that tells it of the failure' })
})

t.test('request.signal aborts with the client and not otherwise', async (t) => {
  let signal: AbortSignal | undefined
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      if (request.headers['x-early']) signal = request.signal
      reply.duplex.flushHeaders()
      signal ??= request.signal
      await pipeline(reply.duplex, reply.duplex)
    })
  }, { logger: false })
  for (const early of ['', 'X-Early: 1\r\n']) {
    signal = undefined
    const wire = await connect()
    await wire.request(chunked('/', 'a').replace('\r\n', `\r\n${early}`))
    await wire.request(GET('/none'))
    t.equal(signal!.aborted, false)
    signal = undefined
    wire.send(OPEN('/').replace('\r\n', `\r\n${early}`))
    await wire.head()
    const aborted = once(signal!, 'abort')
    wire.socket.resetAndDestroy()
    await aborted
    t.equal(signal!.aborted, true)
  }
})

t.test('where the connection cannot be taken, Node reads and writes', async (t) => {
  let left!: (code: string) => void
  let entered!: () => void
  const { app, connect, logged } = await serve(t, 'tcp', (app) => {
    addLaterConstraint(app)
    const options = { duplex: true, constraints: { later: 'yes' } }
    app.post('/echo', options, echo)
    app.post('/one', { ...options, duplex: { maxExchanges: 1 } }, echo)
    app.post('/trailers', options, async (request, reply) => {
      const { duplex } = reply
      for await (const piece of duplex) duplex.write(piece)
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
      for await (const piece of reply.header('content-length', 600_000).duplex) {
        await new Promise((resolve) => setImmediate(resolve))
        yield piece
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
      // Not before the next is there, and waits for its turn.
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
  // Each counts once, and leaves the connection with Node's timeout for the time between.
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
  t.match(await wire.request('POST /framing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'), { statusCode: 501 })
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
  t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
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

t.test('a Fastify that keeps its things elsewhere', async (t) => {
  t.strictSame(otherServers({} as FastifyInstance), [])
  t.strictSame(hooksOf({ request: {} } as FastifyReply, 'onError'), [])

  t.equal(missingFromFastify(Fastify()), null)
  const names: [string, string, unknown?][] = [
    ['fastify.hooks', 'hooks of an app'],
    ['fastify.serverBindings', 'servers of an app'],
    ['fastify.children', 'children of an app'],
    ['fastify.genReqId', 'ids of requests'],
    ['fastify.Request', 'context of a request, signal of a request'],
    ['fastify.Request', 'context of a request, signal of a request', class {}],
    ['fastify.Request', 'signal of a request', class { constructor () { Object.assign(this, { signal: {}, [Symbol('fastify.context')]: {} }) } }]
  ]
  for (const [name, missing, instead] of names) {
    const app = Fastify() as unknown as Record<symbol, unknown>
    app[Object.getOwnPropertySymbols(app).find(({ description }) => description === name)!] = instead
    t.equal(missingFromFastify(app as unknown as FastifyInstance), missing)
  }

  const { default: plugin } = t.mockRequire('../../lib/index.ts', {
    '../../lib/fastify-internals.ts': { ...require('../../lib/fastify-internals.ts'), missingFromFastify: () => 'something' }
  }) as { default: typeof duplex }
  await t.rejects(async () => { await Fastify().register(plugin) }, { code: 'FST_ERR_DUPLEX_FASTIFY', message: /^Fastify \S+ lacks what fastify-duplex needs: something$/ })
})

// Until 5.8.0 a client could end the process: a malformed chunk asked for a `request.signal` that was not there.
t.test('a Fastify that is too old is refused at registration', async (t) => {
  const app = require('fastify-5.6')() as FastifyInstance
  t.match(app.version, '5.6.')
  await t.rejects(async () => { await app.register(duplex) }, {
    code: 'FST_ERR_PLUGIN_VERSION_MISMATCH',
    message: `fastify-plugin: fastify-duplex - expected '${require('../../package.json').peerDependencies.fastify}' fastify version, '${app.version}' is installed`
  })
})

t.test('what onRoute hooks of other plugins see of a handler', async (t) => {
  const seen: Record<string, unknown> = {}
  const note = (when: string) => (app: FastifyInstance): void => {
    app.addHook('onRoute', ({ method, handler }) => { if (method === 'POST') seen[when] = [handler.name, (handler as { note?: string }).note] })
  }
  const { connect } = await serve(t, 'tcp', async (app) => {
    note('behind')(app)
    const words = Object.assign(async function * words () { yield 'words' }, { note: 'a note' })
    app.post('/', { duplex: true }, words)
  }, {}, {}, note('before'))
  t.strictSame(seen, { before: ['words', 'a note'], behind: ['words', 'a note'] })
  t.equal((await (await connect()).request(chunked('/'))).body, 'words')
})

t.test('runtimes that read and write connections themselves', async (t) => {
  t.equal(otherRuntime(), null)
  t.equal(otherRuntime({ node: '26.3.0', bun: '1.4.5' }), 'Bun 1.4.5')
  t.equal(otherRuntime({ node: '26.3.0', deno: '2.9.6' }), 'Deno 2.9.6')
  const { default: plugin } = t.mockRequire('../../lib/index.ts', { '../../lib/runtime.ts': { otherRuntime: () => 'Bun 1.4.5' } }) as { default: typeof duplex }
  const lines: { level: number, msg: string }[] = []
  await Fastify({ logger: { stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } }).register(plugin)
  t.match(lines, [{ level: 40, msg: /cannot take connections: Bun 1.4.5 reads and writes them itself. Routes are full duplex all the same, but .* 501/ }])
  t.equal(lines.length, 1)
})

t.test('a Node whose parser cannot be put to sleep', async (t) => {
  const { default: plugin } = t.mockRequire('../../lib/index.ts', {
    '../../lib/handoff.ts': { ...require('../../lib/handoff.ts'), missingFromNode: () => 'something' }
  }) as { default: typeof duplex }
  const lines: { level: number, msg: string }[] = []
  const app = Fastify({ logger: { stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } })
  await app.register(plugin)
  t.match(lines, [{ level: 40, msg: /cannot take connections: Node v.* something/ }])
  lines.length = 0
  const other = Fastify({
    serverFactory: () => new EventEmitter() as http.Server,
    logger: { stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } }
  })
  await other.register(duplex)
  t.match(lines, [{ level: 40, msg: /cannot take connections: the server of this serverFactory/ }])
  other.post('/', { duplex: true }, echo)
  t.equal((await other.inject({ method: 'POST', url: '/', payload: 'a' })).payload, 'a')

  for (const createServer of [() => new EventEmitter(), () => { throw new Error('none') }, http.createServer]) {
    const handoff = t.mockRequire('../../lib/handoff.ts', { 'node:http': { createServer } }) as typeof import('../../lib/handoff.ts')
    t.equal(handoff.missingFromNode() === null, createServer === http.createServer)
    t.equal(handoff.missingFromNode() === null, createServer === http.createServer, 'tried once')
  }
  const strange = (change: (server: http.Server) => void) => (listener: http.RequestListener) => {
    const server = http.createServer(listener)
    change(server)
    return server
  }
  const parsing = (execute: (parse: (piece: Buffer) => number, piece: Buffer) => number) => (server: http.Server) => {
    server.on('connection', (socket: any) => {
      const { parser, parser: { constructor } } = socket
      const parse = constructor.prototype.execute.bind(parser)
      parser.constructor = Object.assign(Object.create(constructor), { prototype: { execute: execute.bind(null, parse) } })
      socket.on('close', () => { delete parser.constructor })
    })
  }
  const changes: [string, (server: http.Server) => void][] = [
    ['listeners', (server) => server.on('connection', (socket) => socket.removeAllListeners('timeout'))],
    ['end of the head', parsing((parse, piece) => { parse(piece); return piece.length })],
    // On Node 26.12, which does not see later that a callback is replaced, waking was a request to Node.
    ['request after an exchange', parsing((parse, piece) => piece.includes('POST') ? parse(piece) : piece.length)]
  ]
  for (const [missing, change] of changes) {
    const handoff = t.mockRequire('../../lib/handoff.ts', { 'node:http': { createServer: strange(change) } }) as typeof import('../../lib/handoff.ts')
    t.equal(handoff.missingFromNode(), missing)
  }
})
