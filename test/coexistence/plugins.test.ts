// Together with popular plugins, each in an app with duplex and ordinary routes, registered before and after fastify-duplex.
// Every test has a conversation on a duplex route, and then sends a request to the ordinary route on the same connection.

import { AsyncResource } from 'node:async_hooks'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { PassThrough, Transform } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { constants, createGunzip, createGzip, gunzipSync, gzipSync } from 'node:zlib'
import busboy from '@fastify/busboy'
import compress from '@fastify/compress'
import cookie from '@fastify/cookie'
import cors from '@fastify/cors'
import formbody from '@fastify/formbody'
import helmet from '@fastify/helmet'
import proxy from '@fastify/http-proxy'
import jwt from '@fastify/jwt'
import multipart from '@fastify/multipart'
import rateLimit from '@fastify/rate-limit'
import { asyncLocalStorage, fastifyRequestContext, requestContext } from '@fastify/request-context'
import sensible from '@fastify/sensible'
import sse from '@fastify/sse'
import staticFiles from '@fastify/static'
import swagger from '@fastify/swagger'
import underPressure from '@fastify/under-pressure'
import websocket from '@fastify/websocket'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import metrics from 'fastify-metrics'
import t, { type Test } from 'tap'
import WebSocket from 'ws'
import { type Wire, chunk, chunked, serve } from '../support/wire.ts'
import { checkPlain, converse, get, open, post, testInBothOrders, upper } from './support.ts'

testInBothOrders('@fastify/cors', (app) => app.register(cors, { origin: 'https://a.example', exposedHeaders: 'x-size' }), () => {}, async (t, { connect }) => {
  const wire = await connect()
  const allowed = { 'access-control-allow-origin': 'https://a.example', 'access-control-expose-headers': 'x-size' }
  t.match(await wire.request('OPTIONS /upper HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n'), { statusCode: 204, fields: { 'access-control-allow-origin': 'https://a.example', 'access-control-allow-methods': /POST/ } })
  t.match(await converse(t, wire, 'Origin: https://a.example\r\n'), { fields: allowed })
  t.match(await checkPlain(t, wire, 'Origin: https://a.example\r\n'), { fields: allowed })
})

testInBothOrders('@fastify/helmet', (app) => app.register(helmet, { global: true }), (app) => {
  app.post('/framed', { duplex: true, helmet: { frameguard: false } }, upper)
}, async (t, { connect }) => {
  const wire = await connect()
  const { fields } = await checkPlain(t, wire)
  t.match(fields, { 'x-frame-options': 'SAMEORIGIN', 'content-security-policy': /default-src/ })
  const names = (fields: object): string[] => Object.keys(fields).filter((name) => !/^(content-(type|length)|transfer-encoding|date)$/.test(name)).sort()
  t.strictSame(names((await converse(t, wire)).fields), names(fields))
  t.equal((await converse(t, wire, '', '/framed')).fields['x-frame-options'], undefined, 'a route can have its own settings')
})

testInBothOrders('@fastify/rate-limit', (app) => app.register(rateLimit, { max: 3, timeWindow: 60_000 }), (app) => {
  app.post('/twice', { duplex: true, config: { rateLimit: { max: 1, timeWindow: 60_000 } } }, upper)
}, async (t, { connect }) => {
  const wire = await connect()
  t.match(await converse(t, wire), { fields: { 'x-ratelimit-limit': '3', 'x-ratelimit-remaining': '2' } })
  await checkPlain(t, wire)
  await checkPlain(t, wire)
  t.match(await wire.request(get('/plain')), { statusCode: 429 })
  t.match(await converse(t, wire, '', '/twice'), { fields: { 'x-ratelimit-limit': '1', 'x-ratelimit-remaining': '0' } })
  wire.send(open('/twice', 'Expect: 100-continue\r\n'))
  t.match(await wire.response(), { statusCode: 429, fields: { 'retry-after': '60', connection: 'close' }, body: /Rate limit exceeded/ }, 'without a 100, so the client need not upload')
  await wire.ended
})

testInBothOrders('@fastify/cookie', (app) => app.register(cookie, { secret: 'a secret of at least 32 characters' }), (app) => {
  app.post('/set', { duplex: true }, async function * (request, reply) {
    t.equal(request.cookies.seen, 'yes')
    // reply.setCookie() takes effect in onSend, which does not run for a streamed body.
    reply.header('set-cookie', [app.serializeCookie('a', '1', { path: '/' }), app.serializeCookie('b', app.signCookie('2'))])
    yield * upper(request, reply)
  })
  app.post('/refused', { duplex: true }, async (request, reply) => reply.setCookie('a', '1').code(403).send('no'))
  app.get('/set', async (request, reply) => reply.setCookie('a', '1').send('set'))
}, async (t, { connect, app }) => {
  const wire = await connect()
  const { headers } = await converse(t, wire, 'Cookie: seen=yes\r\n', '/set')
  t.match(headers, { 'set-cookie': ['a=1; Path=/', /^b=2\./] })
  t.match(app.unsignCookie(decodeURIComponent((headers['set-cookie'] as string[])[1].slice(2))), { valid: true, value: '2' })
  t.match(await wire.request(get('/set')), { headers: { 'set-cookie': ['a=1; SameSite=Lax'] } })
  t.match(await wire.request(post('/refused', 'text/plain', 'a')), { statusCode: 403, headers: { 'set-cookie': ['a=1; SameSite=Lax'] } }, 'an ordinary answer')
  await checkPlain(t, wire)
})

testInBothOrders('@fastify/jwt', (app) => app.register(jwt, { secret: 'a secret of at least 32 characters' }), (app) => {
  const preHandler = (request: FastifyRequest): Promise<unknown> => request.jwtVerify()
  app.post('/mine', { duplex: true, preHandler }, async function * (request, reply) {
    reply.header('x-user', (request.user as { name: string }).name)
    yield * upper(request, reply)
  })
  app.get('/mine', { preHandler }, async (request) => request.user)
}, async (t, { connect, app }) => {
  const token = `Authorization: Bearer ${app.jwt.sign({ name: 'ann' })}\r\n`
  const wire = await connect()
  t.match(await converse(t, wire, token, '/mine'), { fields: { 'x-user': 'ann' } })
  t.match(await wire.request(get('/mine', token)), { body: /"name":"ann"/ })
  t.match(await wire.request(post('/mine', 'text/plain', 'some of it')), { statusCode: 401, body: /FST_JWT_NO_AUTHORIZATION_IN_HEADER/, fields: { connection: 'keep-alive' } })
  t.match(await wire.request(get('/mine', token.replace('.', 'x.'))), { statusCode: 401 })
  wire.send(open('/mine', 'Expect: 100-continue\r\n'))
  t.match(await wire.response(), { statusCode: 401 }, 'without a 100, so the client need not upload')
  await wire.ended
})

testInBothOrders('@fastify/sensible', (app) => app.register(sensible), (app) => {
  app.post('/vary', { duplex: true }, async function * (request, reply) {
    reply.vary('accept')
    reply.cacheControl('max-age', 60)
    yield * upper(request, reply)
  })
  app.post('/gone', { duplex: true }, async (request, reply) => reply.gone('no more'))
  app.post('/conflict', { duplex: true }, async () => { throw app.httpErrors.conflict('taken') })
  app.post('/rows', { duplex: true }, async function * (request, reply) {
    for await (const chunk of reply.duplex) {
      if (String(chunk) !== 'row') throw app.httpErrors.unprocessableEntity('not a row')
    }
    yield 'imported'
  })
}, async (t, { connect }) => {
  const wire = await connect()
  t.match(await converse(t, wire, '', '/vary'), { fields: { vary: 'accept', 'cache-control': 'max-age=60' } })
  t.match(await wire.request(post('/gone', 'a/b', 'a')), { statusCode: 410, body: /no more/ })
  t.match(await wire.request(post('/conflict', 'a/b', 'a')), { statusCode: 409, body: /taken/ })
  t.match(await wire.request(post('/rows', 'a/b', 'cow')), { statusCode: 422, body: /not a row/ })
  t.match(await wire.request(post('/rows', 'a/b', 'row')), { statusCode: 200, body: 'imported' })
  await checkPlain(t, wire)
})

const FORM = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\ncontent\r\n--x--\r\n'

for (const attachFieldsToBody of [false, true]) {
  testInBothOrders(`@fastify/multipart${attachFieldsToBody ? ', attachFieldsToBody' : ''}`, (app) => app.register(multipart, { attachFieldsToBody }), (app) => {
    app.post('/raw', { duplex: true }, async (request, reply) => {
      t.equal(request.isMultipart(), false, 'the content-type parser that sets it has not run')
      await t.rejects(request.file(), { code: 'FST_INVALID_MULTIPART_CONTENT_TYPE' })
      return text(reply.duplex)
    })
    // A handler that needs the parts can pipe the stream into the same parser.
    app.post('/parts', { duplex: true }, (request, reply) => {
      const parts = busboy({ headers: request.headers as { 'content-type': string } })
      parts.on('file', (name, file, filename) => {
        file.on('data', (chunk) => reply.duplex.write(`${filename}: ${chunk.length}\n`))
      })
      parts.on('finish', () => reply.duplex.end('done'))
      reply.duplex.pipe(parts)
    })
    app.post('/ordinary', async (request) => attachFieldsToBody ? Object.keys(request.body as object) : String(await (await request.file())!.toBuffer()))
  }, async (t, { connect }) => {
    const wire = await connect()
    const type = 'multipart/form-data; boundary=x'
    t.equal((await wire.request(post('/raw', type, FORM))).body, FORM)
    wire.send(open('/parts', `Content-Type: ${type}\r\n`) + chunk(FORM.slice(0, -12)))
    t.equal((await wire.head()).statusCode, 200)
    t.equal(await wire.content(9), 'a.txt: 4\n')
    wire.send(chunk(FORM.slice(-12)) + '0\r\n\r\n')
    t.equal(await wire.body(), 'a.txt: 3\ndone')
    t.match(await wire.request(post('/ordinary', type, FORM)), { statusCode: 200, body: attachFieldsToBody ? '["file"]' : 'content' })
    await converse(t, wire)
  })
}

testInBothOrders('@fastify/formbody', (app) => app.register(formbody), (app) => {
  app.post('/ordinary', async (request) => request.body)
}, async (t, { connect }) => {
  const wire = await connect()
  const type = 'application/x-www-form-urlencoded'
  t.equal((await wire.request(post('/upper', type, 'a=1&b=2'))).body, 'A=1&B=2')
  t.equal((await wire.request(post('/ordinary', type, 'a=1&b=2'))).body, '{"a":"1","b":"2"}')
  await converse(t, wire, `Content-Type: ${type}\r\n`)
})

const LONG = 'long '.repeat(1000)

testInBothOrders('@fastify/compress', (app) => app.register(compress, { encodings: ['gzip'] }), (app) => {
  app.get('/long', async (request, reply) => reply.type('text/plain').send(LONG))
  app.post('/long', async (request) => request.body)
  app.post('/length', { duplex: true }, async (request, reply) => `${request.headers['content-encoding']}, ${gunzipSync(Buffer.from(await text(reply.duplex.setEncoding('latin1')), 'latin1'))}`)
  // A handler that needs compression compresses by itself, and flushes after each write.
  app.post('/gzip', { duplex: true }, async (request, reply) => {
    reply.header('content-encoding', 'gzip')
    await pipeline(reply.duplex, createGunzip(), async function * (chunks) {
      for await (const chunk of chunks) yield String(chunk).toUpperCase()
    }, createGzip({ flush: constants.Z_SYNC_FLUSH }), reply.duplex)
  })
}, async (t, { connect }) => {
  const wire = await connect()
  const accept = 'Accept-Encoding: gzip\r\n'
  const { fields } = await converse(t, wire, accept)
  t.equal(fields['content-encoding'], undefined, 'a streamed body does not pass through onSend')
  const compressed = await wire.request(get('/long', accept))
  t.equal(compressed.fields['content-encoding'], 'gzip')
  t.equal(String(gunzipSync(Buffer.from(compressed.body, 'latin1'))), LONG)
  const zipped = gzipSync('{"a":1}').toString('latin1')
  t.equal((await wire.request(post('/long', 'application/json', zipped, 'Content-Encoding: gzip\r\n'))).body, '{"a":1}')
  t.equal((await wire.request(post('/length', 'application/json', zipped, 'Content-Encoding: gzip\r\n'))).body, 'gzip, {"a":1}', 'nor does the request pass through preParsing')

  const up = createGzip({ flush: constants.Z_SYNC_FLUSH })
  const down = createGunzip()
  const received: string[] = []
  up.on('data', (bytes: Buffer) => wire.send(chunk(bytes.toString('latin1'))))
  up.on('end', () => wire.send('0\r\n\r\n'))
  down.on('data', (chunk: Buffer) => received.push(String(chunk)))
  const say = async (word: string): Promise<string> => {
    up.write(word)
    while (received.length === 0) {
      const bytes = Buffer.from(await wire.content(), 'latin1')
      await new Promise((resolve) => { down.write(bytes, resolve) })
    }
    return received.splice(0).join('')
  }
  wire.send(open('/gzip', 'Content-Encoding: gzip\r\n' + accept))
  up.write('zero')
  t.equal((await wire.head()).fields['content-encoding'], 'gzip')
  t.equal(await say(''), 'ZERO')
  t.equal(await say('one'), 'ONE')
  t.equal(await say('two'), 'TWO')
  up.end()
  await wire.body()
  await checkPlain(t, wire)
})

const pressed = (app: FastifyInstance): unknown => app.register(underPressure, {
  healthCheck: async () => false,
  healthCheckInterval: 60_000,
  pressureHandler: (request, reply) => {
    if (request.headers['x-press']) reply.code(503).header('retry-after', 7).send('under pressure')
  }
})

testInBothOrders('@fastify/under-pressure', pressed, () => {}, async (t, { connect }) => {
  const wire = await connect()
  await converse(t, wire)
  t.match(await wire.request(get('/plain', 'X-Press: 1\r\n')), { statusCode: 503, body: 'under pressure' })
  t.match(await wire.request(post('/upper', 'a/b', 'some of it', 'X-Press: 1\r\n')), { statusCode: 503, body: 'under pressure', fields: { 'retry-after': '7', connection: 'keep-alive' } })
  await checkPlain(t, wire)
})

testInBothOrders('@fastify/websocket', (app) => app.register(websocket), (app) => {
  app.get('/socket', { websocket: true }, (socket) => {
    socket.on('message', (words) => socket.send(String(words).toUpperCase()))
  })
}, async (t, { connect, port }) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket`)
  await once(socket, 'open')
  const say = async (word: string): Promise<string> => {
    socket.send(word)
    return String((await once(socket, 'message'))[0])
  }
  const wire = await connect()
  const upgrade = 'Connection: Upgrade\r\nUpgrade: other\r\n'
  wire.send(open('/upper', upgrade) + chunk('one'))
  t.match(await wire.head(), { statusCode: 200 }, 'the route may ignore an Upgrade to another protocol')
  t.equal(await wire.content(3), 'ONE')
  t.equal(await say('three'), 'THREE')
  wire.send(chunk('two'))
  t.equal(await wire.content(3), 'TWO')
  t.equal(await say('four'), 'FOUR')

  const wrong = new WebSocket(`ws://127.0.0.1:${port}/upper`)
  await t.rejects(once(wrong, 'open'), { message: 'Unexpected server response: 404' }, 'a duplex route is not a WebSocket')
  wire.send('0\r\n\r\n')
  t.equal(await wire.body(), '')
  t.match(await wire.request(get('/socket')), { statusCode: 404 })
  await checkPlain(t, wire)
  await converse(t, wire)
  t.equal(await say('five'), 'FIVE')
  socket.close()
  await once(socket, 'close')
})

testInBothOrders('@fastify/sse', (app) => app.register(sse), (app) => {
  app.get('/events', { sse: true }, async (request, reply) => {
    await reply.sse.send({ data: 'first' })
    await new Promise<void>((resolve) => { app.server.once('go on', resolve) })
    await reply.sse.send({ data: 'second' })
  })
}, async (t, { connect, app }) => {
  const events = await connect()
  events.send(get('/events', 'Accept: text/event-stream\r\n'))
  t.match(await events.head(), { statusCode: 200, fields: { 'content-type': 'text/event-stream' } })
  t.match(await events.content(), /^data: "first"\n\n$/)
  const wire = await connect()
  await converse(t, wire)
  app.server.emit('go on')
  t.match(await events.body(), /^data: "second"\n\n$/)
  await checkPlain(t, wire)
})

t.test('@fastify/http-proxy', async (t) => {
  const { port, app: upstream } = await serve(t, 'tcp', (app) => {
    app.post('/upper', { duplex: true }, upper)
    app.get('/plain', async () => 'plain')
  })
  t.equal((upstream.server.address() as AddressInfo).port, port)
  const proxied = (app: FastifyInstance): unknown => app.register(proxy, { upstream: `http://127.0.0.1:${port}`, prefix: '/proxy' })
  for (const order of ['before', 'after']) {
    await t.test(`registered ${order} fastify-duplex`, async (t) => {
      const { connect } = await serve(t, 'tcp', async (app) => {
        if (order === 'after') await proxied(app)
        app.post('/upper', { duplex: true }, upper)
        app.get('/plain', async () => 'plain')
      }, { before: order === 'before' ? proxied : () => {} })
      const wire = await connect()
      await converse(t, wire)
      t.match(await wire.request(get('/proxy/plain')), { body: 'plain' })
      await converse(t, wire, '', '/proxy/upper')
      // The proxy's client sends Connection: close to the upstream, and the proxy forwards the field of the response.
      await wire.ended
      await checkPlain(t, await connect())
    })
  }
})

t.test('@fastify/swagger, without a transform', async (t) => {
  const { app } = await serve(t, 'tcp', async (app) => {
    await app.register(swagger, { openapi: {} })
    app.post('/upper', { duplex: true, schema: { description: 'In capitals', headers: { type: 'object', properties: { 'x-a': { type: 'string' } } } } }, upper)
  })
  t.strictSame((app.swagger() as unknown as { paths: Record<string, object> }).paths['/upper'], {
    post: { description: 'In capitals', parameters: [{ schema: { type: 'string' }, in: 'header', name: 'x-a', required: false }], responses: { 200: { description: 'Default Response' } } }
  })
})

// Without a schema of the body the document has no requestBody. A transform can add one.
const document = (app: FastifyInstance): unknown => app.register(swagger, {
  openapi: {},
  transform: ({ schema, url, route }) => route.duplex
    ? { url, schema: { ...schema, 'x-duplex': true, consumes: ['application/octet-stream'], body: { type: 'string', format: 'binary' } } as object }
    : { url, schema }
})

testInBothOrders('@fastify/swagger', document, (app) => {
  app.post('/rows/:table', {
    duplex: true,
    schema: {
      params: { type: 'object', properties: { table: { type: 'string' } } },
      response: { 200: { description: 'A line per row', content: { 'application/x-ndjson': { schema: { type: 'string' } } } } }
    }
  }, upper)
}, async (t, { connect, app }) => {
  const { paths } = app.swagger() as unknown as { paths: Record<string, Record<string, object>> }
  t.strictSame(paths['/rows/{table}'].post, {
    requestBody: { content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }, required: true },
    parameters: [{ schema: { type: 'string' }, in: 'path', name: 'table', required: true }],
    responses: { 200: { description: 'A line per row', content: { 'application/x-ndjson': { schema: { type: 'string' } } } } },
    'x-duplex': true
  })
  t.match(paths['/upper'].post, { 'x-duplex': true, requestBody: {} })
  t.notHas(paths['/plain'].get, { 'x-duplex': true })
  const wire = await connect()
  await converse(t, wire, '', '/rows/a')
  await checkPlain(t, wire)
})

testInBothOrders('fastify-metrics', (app) => app.register(metrics, { endpoint: '/metrics', clearRegisterOnInit: true }), (app) => {
  app.post('/refused', { duplex: true }, async (request, reply) => reply.code(403).send('no'))
}, async (t, { connect, logged }) => {
  const [wire, other] = [await connect(), await connect()]
  const counts = async (): Promise<string[]> => {
    const { body } = await other.request(get('/metrics'))
    return body.split('\n').filter((line) => /^http_request_duration_seconds_count.*(upper|refused|plain)/.test(line)).map((line) => line.replace(/^\w+/, '')).sort()
  }
  wire.send(open('/upper') + chunk('one'))
  await wire.head()
  t.equal(await wire.content(3), 'ONE')
  t.strictSame(await counts(), [], 'not counted while it is open')
  const completed = logged('request completed')
  wire.send('0\r\n\r\n')
  await wire.body()
  await completed
  t.strictSame(await counts(), ['{method="POST",route="/upper",status_code="200"} 1'])
  t.match(await wire.request(post('/refused', 'a/b', 'a')), { statusCode: 403 })
  await checkPlain(t, wire)
  t.strictSame(await counts(), ['{method="GET",route="/plain",status_code="200"} 1', '{method="POST",route="/refused",status_code="403"} 1', '{method="POST",route="/upper",status_code="200"} 1'])
})

const BIG = 'a line of a big file\n'.repeat(100_000)
const root = t.testdir({ 'a.txt': 'abcdefgh', 'big.txt': BIG, 'index.html': '<p>The app</p>' })

testInBothOrders('@fastify/static', (app) => app.register(staticFiles, { root, prefix: '/files/' }), (app) => {
  app.post('/unread', { duplex: true }, async (request, reply) => reply.sendFile('a.txt'))
  app.post('/read', { duplex: true }, async (request, reply) => {
    const name = await text(reply.duplex)
    return reply.sendFile(name)
  })
  app.post('/called', { duplex: true }, (request, reply) => { reply.download('a.txt', 'b.txt') })
  app.post('/late', { duplex: true }, async (request, reply) => {
    for await (const chunk of reply.duplex) reply.duplex.write(chunk)
    await reply.sendFile('a.txt')
    reply.duplex.end('.')
  })
  app.get('/got', { duplex: true }, async (request, reply) => reply.sendFile('a.txt'))
  app.post('/gone', { duplex: true }, async (request, reply) => reply.callNotFound())
}, async (t, { connect, log, logged }) => {
  const wire = await connect()
  const file = { statusCode: 200, body: 'abcdefgh', fields: { 'content-type': 'text/plain; charset=utf-8', 'content-length': '8', connection: 'keep-alive' } }
  t.match(await wire.request(get('/files/a.txt')), file)
  await converse(t, wire)
  t.match(await wire.request(get('/files/a.txt')), file)
  t.ok((await wire.request(get('/files/big.txt'))).body === BIG)
  await converse(t, wire)
  t.match(await wire.request(get('/files/a.txt', 'Range: bytes=2-4\r\n')), { statusCode: 206, body: 'cde', fields: { 'content-range': 'bytes 2-4/8' } })
  t.match(await wire.request(get('/files/a.txt', 'Range: bytes=9-\r\n')), { statusCode: 416 })
  t.match(await wire.request('HEAD /files/a.txt HTTP/1.1\r\nHost: a\r\n\r\n'), { ...file, body: '' })
  t.match(await wire.request(get('/files/none.txt')), { statusCode: 404 })

  wire.send(chunked('/upper', 'one') + get('/files/big.txt') + chunked('/upper', 'two') + get('/files/a.txt'))
  t.match(await wire.response(), { body: 'ONE' }, 'pipelined in one write')
  t.ok((await wire.response()).body === BIG)
  t.match(await wire.response(), { body: 'TWO' })
  t.match(await wire.response(), file)

  t.match(await wire.request(post('/unread', 'a/b', 'some of it')), file, 'sent by a duplex route')
  t.match(await wire.request(chunked('/unread', 'some', 'of it')), file)
  t.match(await wire.request(chunked('/read', 'a.', 'txt')), file)
  t.ok((await wire.request(chunked('/read', 'big', '.txt'))).body === BIG)
  t.match(await wire.request(chunked('/read', 'none')), { statusCode: 404, fields: { connection: 'keep-alive' } })
  t.match(await wire.request(post('/called', 'a/b', 'some of it')), { ...file, fields: { 'content-disposition': 'attachment; filename=b.txt' } })
  t.match(await wire.request(get('/got', 'Range: bytes=-3\r\n')), { statusCode: 206, body: 'fgh' })
  const { fields } = await wire.request(get('/got'))
  t.match(await wire.request(get('/got', `If-None-Match: ${fields.etag}\r\n`)), { statusCode: 304, body: '' })
  t.match(await wire.request('HEAD /got HTTP/1.1\r\nHost: a\r\n\r\n'), { ...file, body: '' })
  t.match(await wire.request(post('/gone', 'a/b', 'some of it')), { statusCode: 404, body: /Route POST:\/gone not found/, fields: { connection: 'keep-alive' } })
  const completed = logged('request completed')
  t.strictSame(log.filter(({ level }) => level > 30), [])
  t.match(await wire.request(chunked('/late', 'one')), { statusCode: 200, body: 'one.' }, 'sendFile() after the head has no effect')
  await completed
  const warnings = (): unknown[] => log.filter(({ level }) => level > 30)
  while (warnings().length === 0) await immediate() // @fastify/static is still looking for the file
  t.match(warnings(), [{ err: { code: 'FST_ERR_DUPLEX_SENT_LATE' } }])
  await checkPlain(t, wire)
})

const NOT_FOUND: [string, object, (app: FastifyInstance) => void, object][] = [
  ['a handler with a preHandler hook', { prefix: '/files/' }, (app) => {
    app.setNotFoundHandler({ preHandler: async (request: FastifyRequest, reply: FastifyReply) => { reply.header('x-hook', 'ran') } }, async (request, reply) => {
      await new Promise(setImmediate)
      return reply.code(404).send({ none: request.url })
    })
  }, { statusCode: 404, body: /^{"none":"\/gone[^"]*"}$/, fields: { 'x-hook': 'ran' } }],
  ['a handler that sends a file, with the wildcard route', {}, (app) => {
    app.setNotFoundHandler((request, reply) => { reply.sendFile('index.html') })
  }, { statusCode: 200, body: '<p>The app</p>' }],
  ['a handler that sends a file, without the wildcard route', { wildcard: false }, (app) => {
    app.setNotFoundHandler(async (request, reply) => reply.code(404).sendFile('index.html'))
  }, { statusCode: 404, body: '<p>The app</p>' }]
]

for (const [name, options, handle, expected] of NOT_FOUND) {
  testInBothOrders(`@fastify/static, not found: ${name}`, (app) => app.register(staticFiles, { root, ...options }), (app) => {
    handle(app)
    app.post('/gone', { duplex: true }, async (request, reply) => reply.callNotFound())
    app.post('/gone/read', { duplex: true }, async (request, reply) => {
      await text(reply.duplex)
      return reply.callNotFound()
    })
    app.post('/gone/called', { duplex: true }, (request, reply) => { reply.callNotFound() })
    app.get('/gone', { duplex: true }, async (request, reply) => reply.callNotFound())
  }, async (t, { connect, log }) => {
    const wire = await connect()
    for (const path of ['/gone', '/gone/read', '/gone/called']) {
      t.match(await wire.request(post(path, 'a/b', 'some of it')), expected)
      t.match(await wire.request(chunked(path, 'some', 'of it')), expected)
      await converse(t, wire)
    }
    wire.send(open('/gone', 'Expect: 100-continue\r\n'))
    t.match(await wire.response(), expected, 'without a 100, so the client need not upload')
    await wire.ended
    const other = await connect()
    t.match(await other.request(get('/gone')), expected)
    t.match(await other.request('HEAD /gone HTTP/1.1\r\nHost: a\r\n\r\n'), { ...expected, body: '' })
    await checkPlain(t, other)
    t.strictSame(log.filter(({ level }) => level > 30), [])
  })
}

declare module '@fastify/request-context' {
  interface RequestContextData { id: string }
}

/** Where the context was read, the expected id, and the id that was found. */
type Look = [where: string, id: string, found: string | undefined]
const looks: Look[] = []
const found = (): string | undefined => requestContext.get('id')
const look = ({ headers }: FastifyRequest, where: string): void => { looks.push([where, headers['x-id'] as string, found()]) }

const withContext = (app: FastifyInstance): unknown => {
  app.addHook('onRequest', async (request) => { looks.push(['before', 'none', asyncLocalStorage.getStore() === undefined ? 'none' : found()]) })
  return app.register(fastifyRequestContext)
}

testInBothOrders('@fastify/request-context', withContext, (app) => {
  app.addHook('onRequest', async (request) => { app.requestContext.set('id', request.headers['x-id'] as string) })
  app.addHook('preHandler', async (request) => look(request, 'preHandler'))
  app.addHook('onResponse', async (request) => look(request, `onResponse ${request.url}`))
  app.post('/generator', { duplex: true }, async function * (request, reply) {
    look(request, 'generator')
    for await (const chunk of reply.duplex) {
      look(request, 'generator, after a read')
      yield chunk
      look(request, 'generator, after a yield')
    }
    look(request, 'generator, after the end')
    yield '.'
    look(request, 'generator, after the last')
  })
  app.post('/loop', { duplex: { highWaterMark: 1 } }, async (request, reply) => {
    for await (const chunk of reply.duplex) {
      look(request, 'loop, after a read')
      if (!reply.duplex.write(chunk)) await once(reply.duplex, 'drain')
      look(request, 'loop, after drain')
      await new Promise<void>((resolve) => { reply.duplex.write('', () => resolve()) })
      look(request, 'loop, after a write')
    }
    reply.duplex.end('.')
  })
  app.post('/streams', { duplex: true }, async (request, reply) => {
    const between = new PassThrough()
    const fed = pipeline(reply.duplex, between)
    for await (const chunk of between) {
      look(request, 'in a pipeline')
      reply.duplex.write(chunk)
    }
    await fed
    look(request, 'after a pipeline')
    reply.duplex.end('.')
  })
  /** A handler with listeners that are bound to the context of the request, or not. */
  const listen = (bound: boolean) => ({ headers }: FastifyRequest, { duplex }: FastifyReply): void => {
    const id = headers['x-id'] as string
    const bind = <F extends (...args: any[]) => void>(callback: F): F => bound ? AsyncResource.bind(callback) : callback
    const note = (where: string): void => { looks.push([`${bound ? 'bound' : 'unbound'}, ${where}`, id, found()]) }
    duplex.on('data', bind((chunk) => {
      note('data')
      duplex.write(chunk, bind(() => note('write')))
    }))
    duplex.on('drain', bind(() => note('drain')))
    duplex.on('finish', bind(() => note('finish')))
    duplex.on('end', bind(() => {
      note('end')
      duplex.end('.')
    }))
  }
  app.post('/unbound', { duplex: { highWaterMark: 1 } }, listen(false))
  app.post('/bound', { duplex: { highWaterMark: 1 } }, listen(true))
  app.post('/transform', { duplex: true }, async (request, reply) => {
    await pipeline(reply.duplex, new Transform({
      transform (chunk, encoding, done) {
        look(request, 'unbound, transform')
        done(null, chunk)
      },
      flush (done) {
        look(request, 'unbound, flush')
        done(null, '.')
      }
    }), reply.duplex)
    look(request, 'after a pipeline')
  })
}, async (t, { connect, logged }) => {
  const start = (path: string, id: string): string => open(path, `X-Id: ${id}\r\n`)
  const say = async (wire: Wire, word: string): Promise<void> => {
    wire.send(chunk(word))
    t.equal(await wire.content(word.length), word)
  }
  const end = async (wire: Wire): Promise<void> => {
    const completed = logged('request completed')
    wire.send('0\r\n\r\n')
    t.equal(await wire.body(), '.')
    await completed
  }
  /** Checks all looks since the last call. */
  const checkLooks = (t: Test, minimum: number): void => {
    const all = looks.splice(0)
    t.ok(all.length >= minimum, `${all.length} looks`)
    const isUnbound = ([where]: Look): boolean => /^unbound|^onResponse .(unbound|bound|streams|transform)/.test(where)
    t.strictSame(all.filter(([, id, found]) => found !== undefined && found !== id), [], 'never the context of another request')
    t.strictSame(all.filter((one) => !isUnbound(one) && one[1] !== one[2]), [], 'the context of the request')
    const unbound = all.filter(isUnbound)
    if (unbound.length > 0) t.strictSame(unbound.filter(([, id, found]) => id !== found), [], 'the context of the request, in unbound listeners', { todo: 'Node calls them in the context of the connection, even on an ordinary route' })
  }

  for (const path of ['/generator', '/loop', '/streams', '/bound', '/unbound', '/transform']) {
    await t.test(path, async (t) => {
      const [one, other] = [await connect(), await connect()]
      for (const [first, second] of [['a', 'b'], ['c', 'd']]) {
        one.send(start(path, first) + chunk('one'))
        await one.head()
        t.equal(await one.content(3), 'one')
        other.send(start(path, second) + chunk('one'))
        await other.head()
        t.equal(await other.content(3), 'one')
        await say(one, 'two')
        await say(other, 'two')
        await say(one, 'three')
        await end(other)
        await end(one)
        checkLooks(t, 12)
      }
      await checkPlain(t, one, 'X-Id: e\r\n')
      other.send(['f', 'g', 'h'].map((id) => start(path, id) + chunk('one') + '0\r\n\r\n').join('') + get('/plain', 'X-Id: i\r\n'))
      for (const body of ['one.', 'one.', 'one.', 'plain']) t.match(await other.response(), { body }, 'pipelined in one write')
      await checkPlain(t, other, 'X-Id: j\r\n')
      checkLooks(t, 18)
    })
  }
})
