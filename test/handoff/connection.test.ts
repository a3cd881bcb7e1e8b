// Borrowing a connection and returning it: exactly the bytes of the body are read, whatever the segmentation, on every
// transport, and the next request on the connection is answered.

import dns from 'node:dns'
import { once } from 'node:events'
import { createServer } from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import WebSocket from 'ws'
import duplex from '../../lib/index.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { GET, OPEN, TRANSPORTS, Wire, accepted, chunk, chunked, resolvers, serve, untilStuck } from '../support/wire.ts'
import { routes } from './routes.ts'

for (const transport of TRANSPORTS) {
  t.test(`over ${transport}`, async (t) => {
    const { app, connect } = await serve(t, transport, routes)

    await t.test('both ways at once', async (t) => {
      const wire = await connect()
      wire.send(OPEN('/echo'))
      wire.send(chunk('one'))
      t.match(await wire.head(), { statusCode: 200, fields: { 'transfer-encoding': 'chunked', connection: 'keep-alive' } })
      t.equal(await wire.content(3), 'one')
      wire.send(chunk('two') + chunk('three'))
      t.equal(await wire.content(8), 'twothree')
      wire.send('0\r\n\r\n')
      t.equal(await wire.body(), '')
      t.equal((await wire.request(GET('/plain'))).body, 'plain', 'the connection is returned')
    })

    await t.test('one connection for all kinds of requests', async (t) => {
      const wire = await connect()
      t.equal((await wire.request(GET('/plain'))).body, 'plain')
      for (let i = 0; i < 3; i++) {
        t.equal((await wire.request(chunked('/echo', 'a', 'b'))).body, 'ab')
        t.equal((await wire.request('POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc')).body, 'abc')
        t.equal((await wire.request('POST /echo HTTP/1.1\r\nHost: a\r\n\r\n')).body, '')
        t.equal((await wire.request(chunked('/slow-hooks', 'a', 'b'))).body, 'ab')
        t.equal((await wire.request(GET('/hello'))).body, 'hello')
        t.equal((await wire.request('POST /plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n' + chunk('{"a":1}') + '0\r\n\r\n')).body, '{"a":1}')
      }
    })

    await t.test('cut at every place', async (t) => {
      const bytes = chunked('/echo', 'hello', ' world') + GET('/plain')
      for (let i = 1; i < bytes.length; i += transport === 'tcp' ? 1 : 7) {
        const wire = await connect()
        wire.send(bytes.slice(0, i))
        await immediate()
        wire.send(bytes.slice(i))
        t.equal((await wire.response()).body, 'hello world')
        t.equal((await wire.response()).body, 'plain')
        wire.socket.destroy()
      }
    })

    await t.test('detached by the listener that gets the last of the body', async (t) => {
      for (const [field, body] of [['Content-Length: 5', 'hello'], ['Transfer-Encoding: chunked', '5\r\nhello\r\n0\r\n\r\n']]) {
        const { connect } = await serve(t, transport, (app) => {
          app.post('/', { duplex: true }, (request, reply) => {
            reply.duplex.on('error', () => {}).on('data', () => {
              const { socket, head } = reply.duplex.detach()
              socket.unshift(head)
              socket.write('HTTP/1.1 200 OK\r\n\r\n')
              socket.pipe(socket)
            })
            reply.duplex.writeInformation(102)
          })
        })
        const wire = await connect()
        wire.send(`POST / HTTP/1.1\r\nHost: a\r\n${field}\r\n\r\n`)
        t.equal((await wire.head()).statusCode, 102)
        wire.send(body + 'behind')
        t.equal((await wire.head()).statusCode, 200)
        t.equal(await wire.content(6), 'behind')
        wire.socket.end('more')
        t.equal(await wire.body(), 'more')
      }
    })

    await t.test('byte by byte', async (t) => {
      const wire = await connect()
      for (const byte of chunked('/slow-hooks', 'hello', ' world') + GET('/plain')) {
        wire.send(byte)
        await immediate()
      }
      t.equal((await wire.response()).body, 'hello world')
      t.equal((await wire.response()).body, 'plain')
    })

    await t.test('a client that ends its side still gets the whole response, and the requests before it too', async (t) => {
      const wire = await connect()
      wire.socket.end(chunked('/slow-hooks', 'one') + chunked('/slow-hooks', 'two'))
      t.equal((await wire.response()).body, 'one')
      t.equal((await wire.response()).body, 'two')
      await wire.ended
      const early = await connect()
      early.socket.end(OPEN('/slow-hooks'))
      t.equal((await early.response()).statusCode, 400, 'but not to a request it has not ended')
      await early.ended
      // Over TLS, Node itself is faster than an asynchronous handler.
      const mixed = await connect()
      mixed.socket.end(chunked('/slow-hooks', 'one') + GET(transport === 'tls' ? '/at-once' : '/plain'))
      t.equal((await mixed.response()).body, 'one')
      t.equal((await mixed.response()).body, 'plain', 'nor are ordinary requests lost')
      await mixed.ended
    })

    await t.test('invalid requests behind an exchange fail as they do on a new connection', async (t) => {
      let errors: { code: string, reason: string, bytesParsed: number, rawPacket: string }[] = []
      const onError = ({ code, reason, bytesParsed, rawPacket }: any): void => { errors.push({ code, reason, bytesParsed, rawPacket: String(rawPacket) }) }
      app.server.on('clientError', onError)
      const fail = async (wire: Wire, bytes: string, step = bytes.length): Promise<typeof errors> => {
        errors = []
        for (let i = 0; i < bytes.length && !wire.socket.destroyed; i += step) {
          wire.send(bytes.slice(i, i + step))
          if (step < bytes.length) await immediate()
        }
        await wire.ended
        return errors
      }
      const head = 'GET /at-once HTTP/1.1\r\nHost: a\r\n'
      for (const bytes of [
        'BAD BAD\r\n\r\n',
        '\r\n\r\nBAD BAD\r\n\r\n',
        ' GET / HTTP/1.1\r\n\r\n',
        'GET / HTTP/9.9\r\n\r\n',
        'GET / HTTP/1.1\nHost: a\r\n\r\n',
        'GET / HTTP/1.1\r\nHo st: a\r\n\r\n',
        `${head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`,
        `${head}A: \0\r\n\r\n`,
        `${head}\r\nBAD BAD\r\n\r\n`,
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
      ]) {
        const expected = await fail(await connect(), bytes)
        const wire = await connect()
        t.equal((await wire.request(chunked('/slow-hooks', 'one'))).body, 'one')
        t.strictSame(await fail(wire, bytes), expected, JSON.stringify(bytes))
        const slow = await connect()
        t.equal((await slow.request(chunked('/slow-hooks', 'one'))).body, 'one')
        t.strictSame((await fail(slow, bytes, 1)).map(({ code }) => code), expected.map(({ code }) => code), 'byte by byte')
      }
      app.server.off('clientError', onError)
    })

    await t.test('invalid requests behind an exchange', async (t) => {
      let errors: string[] = []
      app.server.on('clientError', ({ code }: NodeJS.ErrnoException) => errors.push(code!))
      for (const [bytes, code, statusCode] of [
        ['BAD BAD\r\n\r\n', 'HPE_INVALID_METHOD', 400],
        [`GET / HTTP/1.1\r\nA: ${'a'.repeat(20_000)}`, 'HPE_HEADER_OVERFLOW', 431]
      ] as const) {
        for (const pipelined of [true, false]) {
          errors = []
          const wire = await connect()
          wire.send(chunked('/slow-hooks', 'one') + (pipelined ? bytes : ''))
          t.equal((await wire.response()).body, 'one')
          if (!pipelined) wire.send(bytes)
          t.equal((await wire.response()).statusCode, statusCode)
          await wire.ended
          t.strictSame(errors, [code])
        }
      }
      errors = []
      const wire = await connect()
      wire.socket.end(chunked('/slow-hooks', 'one') + 'GET / HT')
      t.equal((await wire.response()).body, 'one')
      t.equal((await wire.response()).statusCode, 400)
      await wire.ended
      t.strictSame(errors, ['HPE_INVALID_EOF_STATE'])
    })
  })
}

for (const where of ['app', 'child'] as const) {
  t.test(`both servers of localhost, with the plugin in the ${where}`, async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    const routes = async (scope: FastifyInstance): Promise<void> => {
      await scope.register(duplex)
      scope.post('/', { duplex: true }, async (request, reply) => {
        await pipeline(reply.duplex, reply.duplex)
      })
    }
    if (where === 'app') await routes(app)
    else await app.register(routes)
    // Two addresses for localhost, on any machine: Fastify asks for all of them to make its second server. macOS has but one
    // of IPv4.
    const second = process.platform === 'darwin' ? { address: '::1', family: 6 } : { address: '127.0.0.2', family: 4 }
    const { lookup } = dns
    t.teardown(() => { dns.lookup = lookup })
    dns.lookup = ((host: string, options: dns.LookupAllOptions, done: (error: null, addresses: dns.LookupAddress[]) => void) => {
      if (host !== 'localhost') lookup(host, options, done as () => void)
      else if (options.all) done(null, [{ address: '127.0.0.1', family: 4 }, second])
      else lookup('127.0.0.1', options, done as () => void)
    }) as typeof dns.lookup
    await app.listen({ port: 0, host: 'localhost' })
    const addresses = app.addresses()
    t.equal(addresses.length, 2)
    for (const { port, address } of addresses as AddressInfo[]) {
      const socket = net.connect(port, address)
      await once(socket, 'connect')
      const wire = new Wire(socket)
      wire.send(OPEN('/') + chunk('a'))
      await wire.head()
      t.equal(await wire.content(), 'a', address)
      // Node's own reader would let this pass; ours, on the raw connection, does not.
      wire.send('1 ;a="\x80"\r\nb\r\n')
      t.equal(await wire.content(), 'b', address)
      wire.send('0\r\n\r\n')
      await wire.body()
      socket.destroy()
    }
  })
}

t.test('a connection in memory, before listen()', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  routes(app)
  await app.ready()
  const written: string[] = []
  const socket = new Duplex({
    read () {},
    write (chunk, _encoding, done) {
      written.push(String(chunk))
      done()
      socket.emit('written')
    }
  })
  app.server.emit('connection', socket)
  for (let i = 0; i < 3; i++) {
    socket.push(chunked('/echo', 'abc'))
    while (!written.join('').endsWith('3\r\nabc\r\n0\r\n\r\n')) await once(socket, 'written')
    written.length = 0
    socket.push(GET('/plain'))
    while (!written.join('').endsWith('plain')) await once(socket, 'written')
    written.length = 0
  }
  const big = 'x'.repeat(1_000_000)
  socket.push(OPEN('/later'))
  for (let i = 0; i < 3; i++) socket.push(chunk(big))
  for (let i = 0; i < 10; i++) await immediate()
  socket.push('0\r\n\r\n')
  while (!written.join('').endsWith('\r\n0\r\n\r\n')) await once(socket, 'written')
  t.equal(written.join('').match(/x/g)!.length, 3_000_000)
  socket.push(OPEN('/hello').replace('POST', 'GET').replace('Host', 'Connection: close\r\nHost') + '0\r\n\r\n')
  socket.push(null)
  await once(socket, 'close')
})

t.test('a peer in memory that answers within a write', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  routes(app)
  app.post('/early-hints', { duplex: true }, (request, reply) => {
    reply.duplex.on('data', () => reply.duplex.writeInformation(103)).on('end', () => reply.duplex.end('done'))
  })
  await app.ready()
  let written = ''
  const socket: Duplex = new Duplex({
    read () {},
    write (chunk, _encoding, done) {
      written += chunk
      if (String(chunk).includes(' 103 ')) socket.push(GET('/plain'))
      done()
      socket.emit('written')
    }
  })
  app.server.emit('connection', socket)
  for (let i = 0; i < 2; i++) {
    written = ''
    socket.push(OPEN('/early-hints'))
    await immediate()
    socket.push(chunk('abc') + '0\r\n\r\n')
    while (!written.endsWith('plain')) await once(socket, 'written')
    t.match(written, /103[^]*done[^]*plain$/)
  }
})

t.test('a connection with a data listener of the app', async (t) => {
  const { app, connect, logged } = await serve(t, 'tcp', routes, { plugin: { idleTimeout: 50 } })
  let heard = 0
  app.server.on('connection', (socket) => socket.on('data', (chunk) => { heard += chunk.length }))
  const wire = await connect()
  const ordinary = GET('/plain')
  t.equal((await wire.request(ordinary)).body, 'plain')
  const whole = chunked('/echo', 'abc')
  for (let i = 0; i < 2; i++) t.equal((await wire.request(whole)).body, 'abc')
  t.equal((await wire.request(ordinary)).body, 'plain')
  t.equal(heard, 2 * (ordinary.length + whole.length), 'hears all, behind an exchange too')
  const open = OPEN('/echo')
  wire.send(open)
  t.match(await logged('No byte in either direction for 50 ms'), { err: { code: 'FST_ERR_DUPLEX_IDLE' } }, 'keeps its timeout')
  t.equal((await wire.response()).statusCode, 408)
  t.equal(heard, 2 * (ordinary.length + whole.length) + open.length)
  await wire.ended
})

t.test('WebSocket and other upgrades', async (t) => {
  for (const withWebsocket of [false, true]) {
    const { app, connect, port } = await serve(t, 'tcp', async (app) => {
      if (withWebsocket) await app.register(websocket)
      routes(app)
      if (withWebsocket) app.get('/ws', { websocket: true }, (socket) => { socket.on('message', (data) => socket.send(`<${data}>`)) })
    })
    const seen: string[] = []
    if (withWebsocket) app.server.on('upgrade', (request) => { seen.push(request.url!) })
    const wire = await connect()
    const upgrade = 'Connection: Upgrade\r\nUpgrade: tcp\r\n'
    const response = await wire.request(`POST /echo HTTP/1.1\r\nHost: a\r\n${upgrade}Content-Length: 3\r\n\r\nabc`)
    t.equal(response.body, 'abc', 'a request that offers another protocol is a request')
    t.equal((await wire.request(chunked('/echo', 'def').replace('\r\n', `\r\n${upgrade}`))).body, 'def')
    t.equal((await wire.request(GET('/plain'))).body, 'plain')
    t.strictSame(seen, [], 'and no upgrade listener sees it')
    const closing = await connect()
    const wanted = GET(withWebsocket ? '/ws' : '/plain').replace('\r\n', '\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n')
    closing.socket.end(chunked('/slow-hooks', 'one') + wanted)
    t.equal((await closing.response()).body, 'one')
    if (!withWebsocket) t.equal((await closing.response()).body, 'plain')
    await closing.ended
    seen.length = 0
    if (withWebsocket) {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`)
      await once(socket, 'open')
      socket.send('hi')
      t.equal(String((await once(socket, 'message'))[0]), '<hi>')
      t.strictSame(seen, ['/ws'], 'WebSocket reaches its listener')
      socket.terminate()
      // The frame comes right behind the head, the second later.
      const frame = '\x81\x82\0\0\0\0hi'
      wire.send(GET('/ws').replace('\r\n', '\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n') + frame)
      t.equal((await wire.head()).statusCode, 101, 'on a returned connection, too')
      t.equal(await wire.content(6), '\x81\x04<hi>')
      wire.send(frame)
      t.equal(await wire.content(6), '\x81\x04<hi>')
    }
  }
})

t.test('100 continue', async (t) => {
  const expect = 'Expect: 100-continue\r\nContent-Length: 3\r\n\r\n'
  await t.test('goes out when the handler first reads', async (t) => {
    let read = (): void => {}
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: true }, async (request, reply) => {
        await new Promise<void>((resolve) => { read = resolve })
        await pipeline(reply.duplex, reply.duplex)
      })
      app.post('/no', { duplex: true, preHandler: async (request, reply) => reply.code(403).send('no') }, () => {})
      app.post('/plain', async (request) => request.body)
      app.get('/plain', async () => 'plain')
      // Whether Node's parser feeds itself from the handle, as it does on a connection that was never taken.
      app.get('/fed', (request, reply) => { reply.send(String((request.raw.socket as unknown as { parser: { _consumed: boolean } }).parser._consumed)) })
      app.addContentTypeParser('*', { parseAs: 'string' }, async (request: unknown, body: unknown) => body)
      app.get('/at-once', (request, reply) => { reply.send('at once') })
    })
    const wire = await connect()
    wire.send(`POST / HTTP/1.1\r\nHost: a\r\n${expect}`)
    for (let i = 0; i < 10; i++) await immediate()
    t.equal(wire.socket.bytesRead, 0)
    read()
    t.equal((await wire.head()).statusCode, 100)
    wire.send('abc')
    t.equal((await wire.response()).body, 'abc')

    t.equal((await wire.send(`POST /plain HTTP/1.1\r\nHost: a\r\n${expect}`).head()).statusCode, 100, 'ordinary routes as before')
    t.equal((await wire.request('abc', 'POST')).body, 'abc')
    wire.send('GET /at-once HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n')
    t.equal((await wire.head()).statusCode, 100, 'even when they answer at once')
    t.equal((await wire.response()).body, 'at once')

    const no = await wire.request(`POST /no HTTP/1.1\r\nHost: a\r\n${expect}`)
    t.match(no, { statusCode: 403, body: 'no', fields: { connection: 'close' } }, 'a rejection saves the upload')
    await wire.ended
  })

  await t.test('behind the whole response, a client that waits for it has drainTimeout to begin', async (t) => {
    const readers: Record<string, (duplex: HttpDuplex) => Promise<string>> = {
      '/half': async (duplex) => {
        const { requestBody } = duplex
        await new Promise<void>((resolve) => { duplex.end('done', resolve) })
        return String(await requestBody.toArray())
      },
      '/web': (duplex) => {
        const { readable } = duplex.web()
        duplex.end('done')
        return new Response(readable).text()
      },
      '/loop': async (duplex) => String(await duplex.end('done').toArray()),
      '/data': async (duplex) => {
        let all = ''
        duplex.on('data', (content) => { all += content }).end('done')
        await finished(duplex)
        return all
      }
    }
    let content: Promise<string>
    const { connect, logged } = await serve(t, 'tcp', (app) => {
      for (const [url, read] of Object.entries(readers)) {
        for (const [prefix, drainTimeout] of [['/waits', 20], ['/sends', 60_000]] as const) {
          app.post(prefix + url, { duplex: { drainTimeout } }, async (_request, { duplex }) => {
            content = read(duplex)
            await content.catch(() => {})
          })
        }
      }
    })
    for (const prefix of ['/waits', '/sends']) {
      for (const url of Object.keys(readers)) {
        const completed = logged('request completed')
        const wire = await connect()
        const response = await wire.request(`POST ${prefix + url} HTTP/1.1\r\nHost: a\r\n${expect}`)
        t.match(response, { body: 'done', fields: { connection: 'close' } })
        if (prefix === '/sends') {
          wire.send('abc')
          t.equal(await content!, 'abc', url)
        } else {
          await t.rejects(content!, url)
        }
        await completed
        wire.socket.end()
        await wire.ended
      }
    }
  })

  await t.test('comes before a response that the handler has begun before its turn, if it has read before', async (t) => {
    const { connect } = await serve(t, 'tcp', (app) => {
      app.get('/first', async () => { await first.promise })
      app.post('/second', { duplex: true }, async (_request, { duplex }) => {
        const content = duplex.toArray()
        await immediate()
        duplex.write('begun ')
        first.resolve()
        duplex.end(String(await content))
      })
    })
    const first = resolvers<void>()
    const wire = await connect()
    wire.send(`GET /first HTTP/1.1\r\nHost: a\r\n\r\nPOST /second HTTP/1.1\r\nHost: a\r\n${expect}`)
    t.match(await wire.response(), { statusCode: 200 })
    t.equal((await wire.head()).statusCode, 100)
    wire.send('abc')
    t.match(await wire.response(), { body: 'begun abc', fields: { connection: 'keep-alive' } })
  })

  await t.test('leaves the decision to a listener of the app', async (t) => {
    const { app, connect } = await serve(t, 'tcp', routes)
    app.server.on('checkContinue', (request, response) => {
      if (request.headers['x-wanted']) {
        response.writeContinue()
        app.server.emit('request', request, response)
      } else {
        response.writeHead(417)
        response.end()
      }
    })
    const wire = await connect()
    t.equal((await wire.send(`POST /echo HTTP/1.1\r\nHost: a\r\nX-Wanted: 1\r\n${expect}`).head()).statusCode, 100)
    t.equal((await wire.request('abc', 'POST')).body, 'abc')
    t.equal((await wire.request(`POST /echo HTTP/1.1\r\nHost: a\r\n${expect}`)).statusCode, 417)
  })
})

t.test('a request that Node refuses is not routed', async (t) => {
  const { connect } = await serve(t, 'tcp', routes)
  const wire = await connect()
  t.equal((await wire.request('POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n')).statusCode, 400)
  await wire.ended
})

t.test('parsers return to the pool of Node', async (t) => {
  const { connect, port } = await serve(t, 'tcp', async (app) => {
    await app.register(websocket)
    routes(app)
    app.get('/ws', { websocket: true }, () => {})
  })
  // The parser of an upgraded connection serves another before this one closes.
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`)
  await once(socket, 'open')
  const wire = await connect()
  t.equal((await wire.request(chunked('/echo', 'a'))).body, 'a')
  socket.terminate()
  await once(socket, 'close')
  for (let i = 0; i < 20; i++) await immediate()
  wire.send(OPEN('/echo'))
  await immediate()
  wire.send(chunk(GET('/smuggled')) + '0\r\n\r\n' + GET('/plain'))
  t.equal((await wire.response()).body, GET('/smuggled'))
  t.equal((await wire.response()).body, 'plain')
})

t.test('a connection that fails while requests before an exchange are read', async (t) => {
  const { connect, app } = await serve(t, 'tcp', routes)
  const ordinary = 'POST /plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}'
  for (let i = 0; i < 200; i++) {
    const wire = await connect()
    wire.send(GET('/plain') + ordinary + chunked('/echo', 'a'))
    wire.socket.resetAndDestroy()
  }
  t.equal((await (await connect()).request(GET('/plain'))).body, 'plain')
  t.equal(app.server.listening, true)
})

t.test('a connection that was left open after a client error', async (t) => {
  const seen: string[] = []
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHook('onRequest', async (request) => { seen.push(request.url) })
    routes(app)
    app.post('/refuse', { duplex: true, preHandler: async (request, reply) => reply.code(403).send() }, () => {})
  }, { fastify: { clientErrorHandler: () => {}, http: { connectionsCheckingInterval: 20, headersTimeout: 50, requestTimeout: 50 } } })
  for (const url of ['/refuse', '/echo']) {
    const failed = once(app.server, 'clientError')
    const wire = await connect()
    wire.send(`POST ${url} HTTP/1.1\r\n`)
    t.match(await failed, [{ code: 'ERR_HTTP_REQUEST_TIMEOUT' }])
    wire.send(`Host: a\r\nContent-Length: ${GET('/smuggled').length}\r\n\r\n${GET('/smuggled')}`)
    await wire.ended
  }
  t.strictSame(seen, ['/refuse', '/echo'], 'is closed, and nothing behind the head is read')
})

t.test('a connection that is destroyed when the response is complete', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHook('onResponse', (request, reply, done) => {
      request.raw.socket.destroy()
      done()
    })
    routes(app)
  })
  for (const behind of ['', GET('/plain'), chunked('/echo', 'b')]) {
    const wire = await connect()
    wire.send(chunked('/echo', 'a') + behind)
    t.equal((await wire.response()).body, 'a')
    await wire.ended
  }
  t.equal(app.server.listening, true)
})

t.test('a body that is read from the first hook on, while the parser is running', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    const bodies: string[] = []
    app.post('/', {
      duplex: true,
      onRequest: (request, reply, done) => {
        bodies.length = 0
        t.equal(reply.duplex.read(), null)
        reply.duplex.on('data', (chunk) => bodies.push(String(chunk)))
        done()
      }
    }, async (request, reply) => {
      if (!reply.duplex.readableEnded) await once(reply.duplex, 'end')
      reply.duplex.end(bodies.join(''))
    })
  })
  const wire = await connect()
  t.equal((await wire.request(chunked('/', 'one', 'two'))).body, 'onetwo')
  t.equal((await wire.request(chunked('/', 'three'))).body, 'three')
})

t.test('other servers are not changed', async (t) => {
  const server = createServer((request, response) => response.end('other'))
  t.teardown(() => server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.equal(server.listenerCount('connection'), 1)
})

t.test('bytes behind an upgrade, on a returned connection', async (t) => {
  const size = 150_000
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (_request, { duplex }) => { duplex.end('ok') })
  })
  app.server.on('upgrade', (_request, socket: Socket, head: Buffer) => {
    let received = head.length
    const look = (): void => { if (received === size) socket.end(`got ${received}`) }
    socket.on('data', (chunk) => { received += chunk.length; look() })
    look()
  })
  const [wire, socket] = await accepted(app, connect)
  t.equal((await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')).body, 'ok')
  const answer = once(wire.socket, 'data')
  wire.send('GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n' + 'x'.repeat(size - 1000))
  await untilStuck(() => socket.bytesRead)
  wire.send('x'.repeat(1000))
  t.equal(String((await answer)[0]), `got ${size}`)
})
