// Together with code that uses Node's request and response, and may wrap them: Express middlewares and pino-http.

import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import http2 from 'node:http2'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import express from '@fastify/express'
import middie from '@fastify/middie'
import compression from 'compression'
import session from 'express-session'
import type { FastifyInstance } from 'fastify'
import onHeaders from 'on-headers'
import { pinoHttp } from 'pino-http'
import responseTime from 'response-time'
import t, { type Test } from 'tap'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { type Response, type Wire, chunk, chunked, serve } from '../support/wire.ts'
import { type Plugin, checkPlain, converse, get, open, post, testInBothOrders, upper } from './support.ts'

type Middleware = (request: any, response: any, next: (error?: Error) => void) => void

const HOSTS: Record<string, Plugin> = { '@fastify/middie': (app) => app.register(middie), '@fastify/express': (app) => app.register(express) }

/** Runs a test together with middlewares, in each of the plugins that run them. */
function testWithMiddlewares (name: string, middlewares: Middleware[], routes: Plugin, check: Parameters<typeof testInBothOrders>[3]): void {
  for (const [host, plugin] of Object.entries(HOSTS)) {
    testInBothOrders(`${name}, in ${host}`, async (app) => {
      await plugin(app)
      for (const middleware of middlewares) app.use(middleware)
    }, routes, check)
  }
}

const setsHeaders = (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
  response.setHeader('x-set', 'at once')
  onHeaders(response, () => { response.setHeader('x-status', response.statusCode) })
  setImmediate(next)
}

testWithMiddlewares('headers of middlewares', [setsHeaders], (app) => {
  app.post('/accepted', { duplex: true }, async function * (request, reply) {
    reply.code(202)
    yield * upper(request, reply)
  })
  app.post('/refused', { duplex: true }, async (request, reply) => reply.code(403).send('no'))
}, async (t, { connect }) => {
  const wire = await connect()
  t.match(await checkPlain(t, wire), { fields: { 'x-set': 'at once', 'x-status': '200' } })
  const { fields } = await converse(t, wire)
  t.equal(fields['x-set'], 'at once')
  t.equal(fields['x-status'], '200')
  t.match(await wire.request(chunked('/accepted', 'one')), { statusCode: 202, body: 'ONE', fields: { 'x-status': '202' } })
  t.match(await wire.request(post('/refused', 'a/b', 'x')), { statusCode: 403, fields: { 'x-set': 'at once', 'x-status': '403' } }, 'an ordinary answer')
  await checkPlain(t, wire)
})

/** Changes the head when it is sent, as the request asks for. */
const changesHead: Middleware = (request, response, next) => {
  onHeaders(response, () => {
    for (const [name, value] of Object.entries(JSON.parse(request.headers['x-head'] ?? '{}'))) {
      if (name === 'throw') throw new Error('by a listener')
      else if (name === 'status') response.statusCode = value
      else if (value === null) response.removeHeader(name)
      else response.setHeader(name, value)
    }
  })
  next()
}

/** Without on-headers: fields as an argument, and each time that it is called. */
const addsArgument: Middleware = (request, response, next) => {
  const { writeHead } = response
  response.writeHead = (status: number, ...args: unknown[]) => writeHead.call(response, status, { ...args.at(-1) as object, 'x-argument': 'yes' })
  next()
}

const head = (value: object): string => `X-Head: ${JSON.stringify(value)}\r\n`

testWithMiddlewares('middlewares that change the head', [changesHead, addsArgument], (app) => {
  app.post('/whole', { duplex: true }, async (request, reply) => {
    reply.header('x-own', 'own').header('set-cookie', ['a=1', 'b=2']).header('content-length', 2).duplex.end('ok')
  })
  app.post('/bad', { duplex: true }, async (request, reply) => { reply.header('x-own', 'a\nb').duplex.end('ok') })
  app.post('/flushed', { duplex: true }, async (request, reply) => {
    reply.duplex.flushHeaders()
    await pipeline(reply.duplex, reply.duplex)
  })
}, async (t, { connect }) => {
  const wire = await connect()
  const whole = (fields: object): Promise<Response> => wire.request(post('/whole', 'a/b', 'x', head(fields)))
  const kept = { connection: 'keep-alive', 'x-argument': 'yes' }
  t.match(await whole({}), { statusCode: 200, body: 'ok', headers: { ...kept, 'x-own': 'own', 'set-cookie': ['a=1', 'b=2'], 'content-length': '2' } })
  t.match(await whole({ 'x-own': 'theirs', 'x-new': 'new', 'set-cookie': ['c=3'], status: 203 }), {
    statusCode: 203,
    statusMessage: 'Non-Authoritative Information',
    body: 'ok',
    headers: { ...kept, 'x-own': 'theirs', 'x-new': 'new', 'set-cookie': ['c=3'] }
  })
  t.match(await whole({ 'content-length': null, 'x-own': null }), { body: 'ok', fields: { ...kept, 'content-length': undefined, 'x-own': undefined, 'transfer-encoding': 'chunked' } }, 'the framing follows')
  t.match(await wire.request(chunked('/flushed', 'one').replace('Host', head({ 'x-new': 'new' }) + 'Host')), { body: 'one', fields: { ...kept, 'x-new': 'new' } })
  for (const [fields, code] of [[{ 'x-new': 'new', 'transfer-encoding': 'gzip' }, 'FST_ERR_DUPLEX_OWN_FIELD'], [{ 'x-new': 'new', status: 204 }, 'FST_ERR_DUPLEX_NO_BODY'], [{ 'x-new': 'new', throw: true }, 'by a listener']] as const) {
    const { statusCode, statusMessage, body, fields: answered } = await whole(fields)
    t.match({ statusCode, statusMessage, answered }, { statusCode: 500, statusMessage: 'Internal Server Error', answered: { 'x-own': 'own', 'x-new': 'new', 'content-type': /json/, 'content-length': String(body.length) } })
    t.match(body, code)
  }
  const refused = await wire.request(post('/bad', 'a/b', 'x', head({ 'x-new': 'new' })))
  t.match(refused, { statusCode: 500, fields: { 'x-new': 'new', 'x-own': undefined }, body: /FST_ERR_DUPLEX_FIELD/ })
  t.match(await wire.request(post('/whole', 'a/b', 'x', head({ connection: 'close' }))), { body: 'ok', fields: { connection: 'close' } })
  await wire.ended
  await checkPlain(t, await connect())
})

testWithMiddlewares('response-time and express-session', [
  responseTime() as Middleware,
  session({ secret: 'secret', resave: false, saveUninitialized: false }) as Middleware
], (app) => {
  app.post('/visit', { duplex: true }, async function * (request) {
    const { session } = request.raw as unknown as { session: { visits?: number } }
    session.visits = (session.visits ?? 0) + 1
    yield `visit ${session.visits}`
  })
}, async (t, { connect }) => {
  const wire = await connect()
  t.match(await converse(t, wire), { headers: { 'x-response-time': /ms$/, 'set-cookie': undefined } })
  const first = await wire.request(post('/visit', 'a/b', 'x'))
  t.match(first, { body: 'visit 1', headers: { 'x-response-time': /ms$/, 'set-cookie': [/^connect\.sid=/] } })
  const cookie = `Cookie: ${String(first.headers['set-cookie']).split(';')[0]}\r\n`
  t.match(await wire.request(post('/visit', 'a/b', 'x', cookie)), { body: 'visit 2', headers: { 'set-cookie': undefined } })
  wire.send(post('/visit', 'a/b', 'x', cookie) + post('/visit', 'a/b', 'x', cookie))
  t.match(await wire.response(), { body: 'visit 3' })
  t.match(await wire.response(), { body: /^visit/ }, 'out of turn')
  await checkPlain(t, wire)
})

/** Decodes the body as its Content-Encoding says. */
function decoded ({ fields, body }: Response): string {
  const coding = fields['content-encoding'] ?? 'identity'
  if (coding !== 'identity') t.equal(coding, 'gzip')
  return coding === 'gzip' ? String(gunzipSync(Buffer.from(body, 'latin1'))) : body
}

const LONG = 'long '.repeat(1000)
const GZIP = 'Accept-Encoding: gzip\r\n'

const text: Plugin = (app) => {
  app.get('/long', async (request, reply) => reply.type('text/plain').send(LONG))
  app.post('/text', { duplex: true }, async function * (request, reply) {
    reply.type('text/plain')
    yield * upper(request, reply)
  })
  app.post('/refused', { duplex: true }, async (request, reply) => reply.code(403).type('text/plain').send(LONG))
}

/** Checks that the body of a duplex response matches its Content-Encoding, compressed or not. */
async function checkDecoding (t: Test, wire: Wire): Promise<void> {
  wire.send(open('/text', GZIP) + chunk(LONG) + chunk('two') + '0\r\n\r\n')
  t.equal(decoded(await wire.response()), `${LONG}two`.toUpperCase())
  await converse(t, wire, '', '/text')
}

testWithMiddlewares('compression', [compression({ threshold: 0 }) as Middleware], text, async (t, { app, connect }) => {
  const wire = await connect()
  await checkDecoding(t, wire)
  // With @fastify/express `headersSent` stays false, so compression breaks ordinary responses, even without this plugin.
  if (app.hasPlugin('@fastify/express')) return checkDecoding(t, wire)
  const compressed = await wire.request(get('/long', GZIP))
  t.equal(compressed.fields['content-encoding'], 'gzip')
  t.equal(decoded(compressed), LONG)
  await checkDecoding(t, wire)
  const refused = await wire.request(post('/refused', 'a/b', 'x', GZIP))
  t.equal(refused.statusCode, 403)
  t.equal(decoded(refused), LONG)
  await checkPlain(t, wire)
  t.equal(decoded(await wire.request(get('/long', GZIP))), LONG)
})

t.test('compression, on Node\'s request and response', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    addLaterConstraint(app)
    const constraints = { later: 'yes' }
    app.post('/text', { duplex: true, constraints }, async function * (request, reply) {
      reply.type('text/plain')
      yield * upper(request, reply)
    })
    app.post('/whole', { duplex: true }, (request, reply) => { reply.type('text/plain').duplex.end(LONG) })
    app.get('/plain', async () => 'plain')
  }, {
    plugin: { idleTimeout: 1000 },
    async before (app) {
      await app.register(middie)
      app.use(compression({ threshold: 0 }))
    }
  })
  await t.resolveMatch(app.inject({ method: 'POST', url: '/whole', headers: { 'accept-encoding': 'gzip' } }).then(({ rawPayload }) => String(gunzipSync(rawPayload))), LONG)
  const wire = await connect()
  wire.send(open('/text', GZIP) + chunk(LONG) + '0\r\n\r\n')
  await t.resolveMatch(wire.response().then(decoded), LONG.toUpperCase())
  await checkPlain(t, await connect())
})

t.test('compression of many and of large writes over HTTP/2', async (t) => {
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => { if (warning.name.startsWith('MaxListeners')) warnings.push(warning) }
  process.on('warning', onWarning)
  t.teardown(() => process.removeListener('warning', onWarning))
  const LARGE = Buffer.alloc(300_000, 'a')
  const { port } = await serve(t, 'tcp', (app) => {
    app.get('/large', { duplex: true }, async (request, reply) => {
      reply.type('text/plain').duplex.write(LARGE)
      await immediate()
      reply.duplex.end('z')
    })
    app.get('/many', { duplex: true }, async (request, reply) => {
      reply.type('text/plain')
      for (let i = 0; i < 100; i++) await new Promise((resolve) => reply.duplex.write('line\n', resolve))
      reply.duplex.end()
    })
  }, {
    fastify: { http2: true },
    plugin: { idleTimeout: 2000 },
    async before (app) {
      await app.register(middie)
      app.use(compression({ threshold: 0 }) as never)
    }
  })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  t.teardown(() => session.destroy())
  for (const [path, body] of [['/large', LARGE + 'z'], ['/many', 'line\n'.repeat(100)]]) {
    const stream = session.request({ ':path': path, 'accept-encoding': 'gzip' })
    const [headers] = await once(stream, 'response')
    t.equal(headers['content-encoding'], 'gzip')
    t.ok(gunzipSync(Buffer.concat(await stream.toArray())).toString() === body, path)
  }
  t.strictSame(warnings, [])
})

/** Records the body and ends the response later, as middlewares for sessions and caches do. */
const recordsBody: Middleware = (request, response, next) => {
  const { write, end } = response
  const parts: string[] = []
  response.write = function (this: ServerResponse, ...args: any[]) {
    parts.push(String(args[0]))
    return Reflect.apply(write, this, args) as boolean
  }
  response.end = function (this: ServerResponse, ...args: any[]) {
    if (typeof args[0] === 'string' || Buffer.isBuffer(args[0])) parts.push(String(args[0]))
    request.socket.emit('body', parts.join(''))
    setImmediate(() => Reflect.apply(end, this, args))
    return this
  }
  next()
}

testWithMiddlewares('wrapped write() and end()', [recordsBody], (app) => {
  app.post('/refused', { duplex: true }, async (request, reply) => reply.code(403).send('no'))
}, async (t, { app, connect }) => {
  const bodies: string[] = []
  app.server.on('connection', (socket) => socket.on('body', (body: string) => bodies.push(body)))
  const wire = await connect()
  await converse(t, wire)
  await checkPlain(t, wire)
  t.match(await wire.request(post('/refused', 'a/b', 'x')), { statusCode: 403, body: 'no' })
  t.strictSame(bodies, ['', 'plain', 'no'], 'the wrappers do not see a streamed body')
  await converse(t, wire)
  await checkPlain(t, wire)
})

const refuses: Middleware = (request, response, next) => {
  if (request.headers.authorization !== undefined) return next()
  response.statusCode = 401
  response.end('no')
}

testWithMiddlewares('a middleware that answers', [refuses], (app) => {
  app.post('/unreachable', { duplex: true }, async () => { t.fail('the handler is called') })
}, async (t, { connect }) => {
  const allowed = 'Authorization: Basic YTpi\r\n'
  const wire = await connect()
  t.match(await wire.request(post('/unreachable', 'a/b', 'some of it')), { statusCode: 401, body: 'no', fields: { connection: 'keep-alive' } })
  await converse(t, wire, allowed)
  t.match(await wire.request(chunked('/unreachable', 'some', 'more')), { statusCode: 401, body: 'no', fields: { connection: 'keep-alive' } })
  await checkPlain(t, wire, allowed)
  wire.send(open('/unreachable', 'Expect: 100-continue\r\n'))
  t.match(await wire.response(), { statusCode: 401, body: 'no' }, 'without a 100, so the client need not upload')
  await wire.ended
  const uploads = await connect()
  uploads.send(open('/unreachable') + chunk('x'))
  t.match(await uploads.response(), { statusCode: 401, body: 'no' }, 'during the upload')
  uploads.send(chunk('y') + '0\r\n\r\n')
  await checkPlain(t, uploads, allowed)
})

testWithMiddlewares('a middleware that fails', [(request, response, next) => { next(Object.assign(new Error('not today'), { statusCode: 409 })) }], () => {}, async (t, { connect }) => {
  const wire = await connect()
  for (let i = 0; i < 2; i++) t.match(await wire.request(post('/upper', 'a/b', 'some of it')), { statusCode: 409, body: /not today/ })
  t.match(await wire.request(get('/plain')), { statusCode: 409 })
})

for (const [host, plugin] of Object.entries(HOSTS)) {
  testInBothOrders(`a middleware of a path, in ${host}`, async (app) => {
    await plugin(app)
    app.use('/users', (request: IncomingMessage & { user?: string }, response: ServerResponse, next: () => void) => {
      request.user = request.url!.slice(1)
      next()
    })
  }, (app) => {
    app.post('/users/:name', { duplex: true }, async function * (request, reply) {
      const { user, url } = request.raw as IncomingMessage & { user?: string }
      reply.header('x-user', user).header('x-url', `${url}`).header('x-name', (request.params as { name: string }).name)
      yield * upper(request, reply)
    })
  }, async (t, { connect }) => {
    const wire = await connect()
    t.match(await converse(t, wire, '', '/users/ann'), { fields: { 'x-user': 'ann', 'x-url': '/users/ann', 'x-name': 'ann' } })
    await checkPlain(t, wire)
    await converse(t, wire)
  })
}

interface Completed { msg: string, res: { statusCode: number }, req: { url: string }, err?: { message: string } }

/** The lines that pino-http logs at the end of each request. */
class Completions {
  readonly lines: Completed[] = []
  private wake = (): void => {}

  write (line: string): void {
    this.lines.push(JSON.parse(line))
    this.wake()
  }

  /** Waits for a line. @returns all lines since the last call, so that a second line for the same request is noticed */
  async next (): Promise<unknown[]> {
    while (this.lines.length === 0) await new Promise<void>((resolve) => { this.wake = resolve })
    return this.lines.splice(0).map(({ msg, req, res }) => [msg, req.url, res.statusCode])
  }
}

const logging: Record<string, (app: FastifyInstance, log: Completions) => Promise<void>> = {
  'in @fastify/middie': async (app, log) => {
    await app.register(middie)
    app.use(pinoHttp({}, log) as Middleware)
  },
  'in @fastify/express': async (app, log) => {
    await app.register(express)
    app.use(pinoHttp({}, log) as Middleware)
  },
  'in an onRequest hook': async (app, log) => {
    const http = pinoHttp({}, log)
    app.addHook('onRequest', async (request, reply) => { http(request.raw, reply.raw) })
  }
}

for (const [place, register] of Object.entries(logging)) {
  let log: Completions
  testInBothOrders(`pino-http, ${place}`, async (app) => {
    log = new Completions()
    await register(app, log)
  }, (app) => {
    app.post('/accepted', { duplex: true }, async function * (request, reply) {
      reply.code(202)
      yield * upper(request, reply)
    })
    app.post('/refused', { duplex: true }, async (request, reply) => reply.code(403).send('no'))
    app.post('/broken', { duplex: true }, async (request, reply) => {
      await pipeline(reply.duplex, reply.duplex, { end: false })
      throw new Error('broken')
    })
  }, async (t, { connect }) => {
    // With @fastify/express `headersSent` stays false, so pino-http logs no status, even on ordinary routes.
    const checkLine = async (msg: string, url: string, status: number): Promise<void> => {
      t.strictSame(await log.next(), [[msg, url, place.includes('express') ? null : status]])
    }
    const wire = await connect()
    await converse(t, wire)
    await checkLine('request completed', '/upper', 200)
    await converse(t, wire, '', '/upper?twice')
    await checkLine('request completed', '/upper?twice', 200)
    t.match(await wire.request(chunked('/accepted', 'one')), { statusCode: 202, body: 'ONE' })
    await checkLine('request completed', '/accepted', 202)
    await checkPlain(t, wire)
    await checkLine('request completed', '/plain', 200)
    t.match(await wire.request(post('/refused', 'a/b', 'x')), { statusCode: 403 })
    await checkLine('request completed', '/refused', 403)
    wire.send(chunked('/broken', 'one'))
    await wire.head()
    await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
    await checkLine('request errored', '/broken', 200)

    const leaving = await connect()
    leaving.send(open('/upper') + chunk('one'))
    await leaving.head()
    leaving.socket.destroy()
    await checkLine('request errored', '/upper', 200)
    await checkPlain(t, await connect())
    await checkLine('request completed', '/plain', 200)
  })
}

t.test('middlewares that change the head, on Node\'s request and response', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    addLaterConstraint(app)
    app.post('/whole', { duplex: true, constraints: { later: 'yes' } }, async (request, reply) => {
      reply.header('x-own', 'own').header('content-length', 2).duplex.end('ok')
    })
    app.get('/plain', async () => 'plain')
  }, {
    async before (app) {
      await app.register(middie)
      for (const middleware of [changesHead, addsArgument]) app.use(middleware)
    }
  })
  const wire = await connect()
  const whole = (fields: object): Promise<Response> => wire.request(post('/whole', 'a/b', 'x', head(fields)))
  t.match(await whole({ 'x-own': 'theirs', 'x-new': 'new', status: 203 }), { statusCode: 203, body: 'ok', fields: { 'x-own': 'theirs', 'x-new': 'new', 'x-argument': 'yes' } })
  t.match(await whole({ 'content-length': null }), { body: 'ok', fields: { 'content-length': undefined } })
  t.match(await whole({ 'x-new': 'new', throw: true }), { statusCode: 500, fields: { 'x-new': 'new' }, body: /by a listener/ })
  await checkPlain(t, wire)
})
