// The plugin registered in several scopes of one app: what is done to a server is done once.

import { once } from 'node:events'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import duplex from '../../lib/index.ts'
import { CONNECT, GET, OPEN, TRANSPORTS, chunked, dial, serve } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

/** Registers the plugin in two siblings. `serve` registers it in their parent as well, when they are loaded. */
function siblings (setup: (scope: FastifyInstance, name: string) => void): (app: FastifyInstance) => Promise<void> {
  return async (app) => {
    for (const name of ['a', 'b']) {
      await app.register(async (scope) => {
        await scope.register(duplex, { closeGrace: 0, bodyLimit: name === 'a' ? 3 : 5 })
        setup(scope, name)
      }, { prefix: `/${name}` })
    }
  }
}

const EXPECT = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n`

for (const transport of TRANSPORTS) {
  t.test(`exchanges of siblings on one connection, ${transport}`, async (t) => {
    const { connect, log } = await serve(t, transport, (app) => {
      app.post('/echo', { duplex: true }, echo)
      app.post('/plain', async (request) => request.body)
    }, { before: siblings((scope) => { scope.post('/echo', { duplex: true }, echo) }) })
    const wire = await connect()
    for (const path of ['/a/echo', '/b/echo', '/echo', '/b/echo', '/a/echo']) {
      t.match(await wire.request(chunked(path, 'abc')), { statusCode: 200, body: 'abc' }, path)
    }
    wire.send(chunked('/a/echo', '1') + chunked('/b/echo', '2') + chunked('/a/echo', '3'))
    for (const body of ['1', '2', '3']) t.match(await wire.response(), { statusCode: 200, body }, 'pipelined')
    for (const path of ['/a/echo', '/b/echo', '/plain', '/echo']) {
      wire.send(EXPECT(path).replace('Host', 'Content-Type: text/plain\r\nHost'))
      t.match(await wire.head(), { statusCode: 100 }, path)
      wire.send('abc')
      t.match(await wire.response(), { statusCode: 200, body: 'abc' }, path)
    }
    t.match(await wire.request(EXPECT('/none')), { statusCode: 100 })
    t.match(await wire.response(), { statusCode: 404 })
    t.match(await (await connect()).request('POST /a/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd'), { statusCode: 413 }, 'each with its options')
    t.match(await (await connect()).request('POST /b/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd'), { statusCode: 200 })
    t.strictSame(log.filter(({ level }) => level > 30), [])
  })
}

t.test('CONNECT, for which only one of them has a route', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/smuggled', async () => t.fail('smuggled'))
  }, {
    before: async (app) => {
      app.addHttpMethod('CONNECT')
      await siblings((scope, name) => {
        if (name === 'b') scope.route({ method: 'CONNECT', url: '*', duplex: true, constraints: { version: '1.0.0' }, handler: echo })
      })(app)
    }
  })
  const wire = await connect()
  // The target is routed as a path, which begins with the prefix of the sibling.
  wire.send(CONNECT('b:1', 'Accept-Version: 1.0.0\r\n') + 'abc')
  t.match(await wire.head('CONNECT'), { statusCode: 200 })
  t.equal(await wire.content(3), 'abc')
  wire.socket.end()
  await wire.ended
  const other = await connect()
  other.send(CONNECT('c:1') + GET('/smuggled'))
  t.match(await other.response(), { statusCode: 404, fields: { connection: 'close' } })
  await other.ended
})

for (const version of [1, 2]) {
  t.test(`CONNECT is routed once, HTTP/${version}`, async (t) => {
    const routed: string[] = []
    const app = Fastify({ http2: version === 2 } as {}) as FastifyInstance
    t.teardown(() => app.close())
    app.addHttpMethod('CONNECT')
    app.addHook('onRequest', async ({ url }) => { routed.push(url) })
    for (const name of ['a', 'b']) {
      await app.register(async (scope) => {
        await scope.register(duplex)
        scope.route({ method: 'CONNECT', url: '*', duplex: true, constraints: { host: name }, handler: echo })
      })
    }
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as AddressInfo
    const session = version === 2 ? http2.connect(`http://127.0.0.1:${port}`) : null
    t.teardown(() => session?.destroy())
    for (const name of ['a', 'b']) {
      if (session === null) {
        const wire = await dial('tcp', { port, host: '127.0.0.1' })
        t.teardown(() => wire.socket.destroy())
        wire.send(CONNECT('c:1').replace('Host: a', `Host: ${name}`) + 'abc')
        t.match(await wire.head('CONNECT'), { statusCode: 200 })
        t.equal(await wire.content(3), 'abc')
        wire.socket.end()
        await wire.ended
      } else {
        const stream = session.request({ ':method': 'CONNECT', ':authority': 'c:1', host: name })
        stream.end('abc')
        t.match((await once(stream, 'response'))[0], { ':status': 200 })
        t.equal(await text(stream), 'abc')
      }
    }
    t.strictSame(routed, ['c:1', 'c:1'])
  })
}

t.test('two copies of the package, as when its versions differ', async (t) => {
  const { default: copy } = t.mockRequire('../../lib/index.ts', {}) as { default: typeof duplex }
  const { connect, log } = await serve(t, 'tcp', (app) => {
    app.post('/plain', async (request) => request.body)
  }, {
    before: async (app) => {
      for (const [name, plugin] of Object.entries({ a: duplex, b: copy })) {
        await app.register(async (scope) => {
          await scope.register(plugin)
          scope.post('/echo', { duplex: true }, echo)
        }, { prefix: `/${name}` })
      }
    }
  })
  const warnings = log.filter(({ level }) => level > 30)
  t.match(warnings, [{ level: 40, msg: /cannot take connections: another copy of fastify-duplex/ }])
  t.equal(warnings.length, 1)
  const wire = await connect()
  for (const path of ['/a/echo', '/b/echo', '/b/echo', '/plain', '/a/echo']) {
    wire.send(EXPECT(path).replace('Host', 'Content-Type: text/plain\r\nHost'))
    t.match(await wire.head(), { statusCode: 100 }, path)
    wire.send('abc')
    t.match(await wire.response(), { statusCode: 200, body: 'abc' }, path)
  }
})

t.test('both are told that the app closes', async (t) => {
  const app = Fastify()
  for (const name of ['a', 'b']) {
    await app.register(async (scope) => {
      await scope.register(duplex)
      scope.post('/', { duplex: true }, (request, reply) => {
        reply.duplex.write('open')
        reply.duplex.on('shutdown', () => { reply.duplex.end('bye') })
      })
    }, { prefix: `/${name}` })
  }
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const wires = await Promise.all(['a', 'b'].map(async (name) => {
    const wire = await dial('tcp', { port, host: '127.0.0.1' })
    t.teardown(() => wire.socket.destroy())
    wire.send(OPEN(`/${name}`))
    await wire.head()
    t.equal(await wire.content(4), 'open')
    return wire
  }))
  const closed = app.close()
  for (const wire of wires) {
    t.equal(await wire.body(), 'bye')
    wire.socket.end()
  }
  await closed
})
