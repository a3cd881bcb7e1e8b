// Registering the plugin and declaring routes, those of CONNECT too: everything Fastify gives stays.

import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import { hooksOf, missingFromFastify, otherServers, logDetached, logPrematureClose } from '../../lib/fastify/internals.ts'
import duplex from '../../lib/index.ts'
import { CONNECT, CUT_OFF, GET, accepted, chunked, dial, serve } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.type(request.headers['content-type'] ?? 'application/octet-stream')
  await pipeline(reply.duplex, reply.duplex)
}

t.test('declared by an onRoute hook that was added before the plugin', async (t) => {
  const declare = (app: FastifyInstance): void => {
    app.addHook('onRoute', (route) => { if (route.url === '/generator') Object.assign(route, { duplex: true }) })
  }
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/generator', async function * (request: FastifyRequest, reply: FastifyReply) {
      for await (const chunk of reply.duplex) yield `<${chunk}>`
      yield '.'
    } as never)
  }, { before: declare })
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

t.test('invalid declarations', async (t) => {
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

t.test('a preParsing hook that another plugin adds to a route after ours', async (t) => {
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

t.test('an onResponse hook that another plugin adds to a route after ours', async (t) => {
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

t.test('a Fastify without log controllers logs itself a client that leaves, and a detached connection', async (t) => {
  const lines: unknown[] = []
  const reply = { server: {}, log: { info: (_fields: unknown, message: string) => { lines.push(message) } } }
  logPrematureClose(reply as unknown as FastifyReply)
  logDetached(reply as unknown as FastifyReply)
  Object.assign(reply.log, { [Symbol('fastify.disableRequestLogging')]: true })
  logPrematureClose(reply as unknown as FastifyReply)
  logDetached(reply as unknown as FastifyReply)
  t.strictSame(lines, ['stream closed prematurely', 'connection detached'])
})

t.test('a Fastify whose internals are missing', async (t) => {
  t.strictSame(otherServers({} as FastifyInstance), [])
  t.strictSame(hooksOf({ request: {} } as FastifyReply, 'onError'), [])

  t.equal(missingFromFastify(Fastify()), null)
  const names: [string, string, unknown?][] = [
    ['fastify.hooks', 'hooks of an app'],
    ['fastify.serverBindings', 'servers of an app'],
    ['fastify.children', 'children of an app'],
    ['fastify.genReqId', 'ids of requests'],
    ['fastify.Request', 'method of a request, context of a request, signal of a request'],
    ['fastify.Request', 'method of a request, context of a request, signal of a request', class {}],
    ['fastify.Request', 'signal of a request', class { get method () { return '' } constructor () { Object.assign(this, { signal: {}, [Symbol('fastify.context')]: {} }) } }]
  ]
  for (const [name, missing, instead] of names) {
    const app = Fastify() as unknown as Record<symbol, unknown>
    app[Object.getOwnPropertySymbols(app).find(({ description }) => description === name)!] = instead
    t.equal(missingFromFastify(app as unknown as FastifyInstance), missing)
  }

  const { default: plugin } = t.mockRequire('../../lib/index.ts', {
    '../../lib/fastify/internals.ts': { ...require('../../lib/fastify/internals.ts'), missingFromFastify: () => 'something' }
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

t.test('onRoute hooks of other plugins see the name and the properties of the handler', async (t) => {
  const seen: Record<string, unknown> = {}
  const note = (when: string) => (app: FastifyInstance): void => {
    app.addHook('onRoute', ({ method, handler }) => { if (method === 'POST') seen[when] = [handler.name, (handler as { note?: string }).note] })
  }
  const { connect } = await serve(t, 'tcp', async (app) => {
    note('behind')(app)
    const words = Object.assign(async function * words () { yield 'words' }, { note: 'a note' })
    app.post('/', { duplex: true }, words)
  }, { before: note('before') })
  t.strictSame(seen, { before: ['words', 'a note'], behind: ['words', 'a note'] })
  t.equal((await (await connect()).request(chunked('/'))).body, 'words')
})

t.test('without a CONNECT route, Node handles CONNECT', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/plain', async () => 'plain')
  })
  const wire = await connect()
  wire.send(CONNECT('a:1'))
  await wire.ended
  await t.rejects(wire.head())
})

for (const version of [1, 2]) {
  t.test(`the router does not change the target of CONNECT, HTTP/${version}`, async (t) => {
    const seen: Record<string, unknown[]> = {}
    const see = (what: string, value: unknown): void => { (seen[what] ??= []).push(value) }
    const { log, connect, port } = await serve(t, 'tcp', (app) => {
      app.addHook('onRequest', async (request) => { see('hook', request.url) })
      const handler = (name: string) => async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
        see('handler', [name, request.url, request.originalUrl, (request.params as object)['*' as never], { ...request.query as object }])
        return reply.code(403).send(name) // an answer to 2xx would be a tunnel
      }
      const onRequest = async (request: FastifyRequest): Promise<void> => { see('route', (request.params as object)['*' as never]) }
      app.route({ method: 'CONNECT', url: '*', duplex: true, constraints: { version: '1.0.0' }, onRequest, handler: handler('duplex') })
      app.route({ method: 'CONNECT', url: '*', constraints: { version: '2.0.0' }, onRequest: [onRequest], handler: handler('ordinary') })
      app.route({ method: ['CONNECT', 'GET'], url: '/:path', duplex: true, handler: handler('path') })
    }, {
      fastify: {
        http2: version === 2,
        rewriteUrl: (request: { url: string }) => request.url,
        genReqId: (request: { url: string }) => { see('id', request.url) }
      },
      before: (app) => {
        app.addHttpMethod('CONNECT')
        app.route({ method: 'CONNECT', url: '*', constraints: { version: '4.0.0' }, handler: async (request, reply) => reply.code(403).send(`before ${request.url}`) })
        app.register(async (sibling) => {
          sibling.route({ method: 'CONNECT', url: '*', constraints: { version: '5.0.0' }, handler: async (request, reply) => reply.code(403).send(`beside ${request.url}`) })
        })
      }
    })
    t.teardown(() => session?.destroy())
    const session = version === 2 ? http2.connect(`http://127.0.0.1:${port}`) : null

    async function ask (target: string, accepted: string): Promise<{ statusCode: number, body: string }> {
      if (session === null) return (await connect()).request(CONNECT(target, `Accept-Version: ${accepted}\r\n`), 'CONNECT')
      const stream = session.request({ ':method': 'CONNECT', ':authority': target, 'accept-version': accepted }, { endStream: true })
      const [{ ':status': statusCode }] = await once(stream, 'response')
      return { statusCode, body: await text(stream) }
    }

    for (const target of ['example.com:443', '[::1]:443', 'a-b.example:1', '127.0.0.1:65535']) {
      for (const [accepted, statusCode, body] of [['1.0.0', 403, 'duplex'], ['2.0.0', 403, 'ordinary'], ['3.0.0', 404, `Route CONNECT:${target} not found`]] as const) {
        for (const name in seen) seen[name] = []
        log.length = 0
        const response = await ask(target, accepted)
        t.equal(response.statusCode, statusCode)
        t.match(response.body, body)
        t.strictSame(seen.hook, [target])
        t.strictSame(seen.id, [target])
        t.strictSame(seen.handler ?? [], statusCode === 404 ? [] : [[body, target, target, target, {}]])
        t.strictSame(seen.route ?? [], statusCode === 404 ? [] : [target])
        t.match(log.find(({ msg }) => msg === 'incoming request'), { req: { method: 'CONNECT', url: target } })
      }
    }
    for (const [accepted, where] of [['4.0.0', 'before'], ['5.0.0', 'beside']]) {
      t.match(await ask('example.com:443', accepted), { statusCode: 403, body: `${where} example.com:443` }, 'a route that this plugin has not seen')
    }
    // The plugin refuses them, not the router. Over HTTP/2 Node itself refuses most of them.
    for (const target of ['a', 'a;b:1', 'a?b:1', '*', 'a%zz:1', 'http://a:1/'].slice(0, version === 2 ? 2 : 6)) {
      t.match(await ask(target, '1.0.0'), { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/ }, target)
    }
  })
}

t.test('a CONNECT request whose URL the app has rewritten', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '/proxy', duplex: true, handler: async ({ url, originalUrl, params, authority }, reply) => reply.code(403).send({ url, originalUrl, params, authority }) })
  }, { fastify: { rewriteUrl: () => '/proxy' } })
  const { body } = await (await connect()).request(CONNECT('example.com:443'), 'CONNECT')
  t.strictSame(JSON.parse(body), { url: '/proxy', originalUrl: 'example.com:443', params: {}, authority: { host: 'example.com', port: 443 } })
  t.match(await (await connect()).request(CONNECT('/proxy'), 'CONNECT'), { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/ }, 'what counts is what the client has sent')
})

t.test('CONNECT with the plugin in a child of the app', async (t) => {
  const app = Fastify({ genReqId: ({ url }) => String(url) })
  t.teardown(() => app.close())
  app.addHttpMethod('CONNECT')
  app.register(async (child) => {
    child.setGenReqId(({ url }) => `of the child ${url}`)
    await child.register(duplex)
    child.route({ method: 'CONNECT', url: '*', duplex: true, constraints: { version: '1.0.0' }, handler: async (request, reply) => reply.code(403).send(request.id) })
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  for (const [version, statusCode, body] of [['1.0.0', 403, 'of the child a:1'], ['2.0.0', 404, 'Route CONNECT:a:1 not found']] as const) {
    const wire = await dial('tcp', { port, host: '127.0.0.1' })
    t.teardown(() => wire.socket.destroy())
    t.match(await wire.request(CONNECT('a:1', `Accept-Version: ${version}\r\n`), 'CONNECT'), { statusCode, body: new RegExp(body) })
  }
})

t.test('the handler is not called for a malformed CONNECT target', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '*', duplex: true, handler: () => t.fail('called') })
  })
  const wire = await connect()
  t.match(await wire.request(CONNECT('a'), 'CONNECT'), { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/ })
  await wire.ended
})

t.test('CONNECT to a target without a route', async (t) => {
  for (const [name, setup] of Object.entries<(app: FastifyInstance) => void>({
    'a 404': () => {},
    'a 404 that takes its time': (app) => { app.setNotFoundHandler(async (_request, reply) => { await immediate(); return reply.code(404).send('x') }) },
    'a handler that hijacks it': (app) => { app.setNotFoundHandler((_request, reply) => { reply.hijack(); reply.raw.end('x') }) }
  })) {
    for (const framing of ['Content-Length: 35', 'Transfer-Encoding: chunked', 'X: y']) {
      await t.test(`${name}, ${framing}`, async (t) => {
        const { app, connect } = await serve(t, 'tcp', (app) => {
          app.addHttpMethod('CONNECT')
          app.route({ method: 'CONNECT', url: '/only/here', duplex: true, handler: echo })
          app.get('/smuggled', async () => t.fail('smuggled'))
          setup(app)
        })
        const [wire, socket] = await accepted(app, connect)
        const closed = new Promise((resolve) => socket.once('close', resolve))
        wire.send(`CONNECT a:1 HTTP/1.1\r\nHost: a\r\n${framing}\r\n\r\n` + GET('/smuggled'))
        const response = await wire.response()
        t.match(response, { fields: { connection: 'close' } })
        wire.send(GET('/smuggled'))
        await wire.ended
        wire.socket.end()
        await closed
      })
    }
  }
})

t.test('CONNECT to a server that passes its connections to another server', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '*', duplex: true, handler: echo })
    app.post('/', { duplex: true }, echo)
    app.get('/smuggled', async () => t.fail('smuggled'))
  }, {
    fastify: {
      serverFactory (onRequest: http.RequestListener) {
        const inner = http.createServer(onRequest)
        const outer = net.createServer({ allowHalfOpen: true }, (socket) => inner.emit('connection', socket))
        return Object.assign(outer, { setTimeout: () => outer, closeIdleConnections: () => {}, closeAllConnections: () => { inner.closeAllConnections() } })
      }
    }
  })
  const [wire, socket] = await accepted(app, connect)
  t.match(await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx'), { body: 'x' })
  const closed = new Promise((resolve) => socket.once('close', resolve))
  wire.send('CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n' + GET('/smuggled'))
  await closed
  await wire.ended
})
