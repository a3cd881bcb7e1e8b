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
import type { FastifyInstance } from 'fastify'
import onHeaders from 'on-headers'
import { pinoHttp } from 'pino-http'
import t, { type Test } from 'tap'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { type Response, type Wire, chunk, chunked, serve } from '../support/wire.ts'
import { type Plugin, checkPlain, converse, get, open, post, testInBothOrders, upper } from './support.ts'

type Middleware = (request: any, response: any, next: (error?: Error) => void) => void

const HOSTS: Record<string, Plugin> = { '@fastify/middie': (app) => app.register(middie), '@fastify/express': (app) => app.register(express) }
const WRAPPED = 'a duplex response does not call `writeHead`, so a wrapper of it cannot add fields to the head'

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
  t.equal(fields['x-status'], '200', { todo: WRAPPED })
  const accepted = await wire.request(chunked('/accepted', 'one'))
  t.match(accepted, { statusCode: 202, body: 'ONE' })
  t.equal(accepted.fields['x-status'], '202', { todo: WRAPPED })
  t.match(await wire.request(post('/refused', 'a/b', 'x')), { statusCode: 403, fields: { 'x-set': 'at once', 'x-status': '403' } }, 'an ordinary answer')
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
  t.strictSame(bodies, ['plain', 'no'], 'the wrappers do not see a streamed body')
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
