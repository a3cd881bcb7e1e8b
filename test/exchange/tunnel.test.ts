// Where HTTP ends and another protocol begins: 101 and CONNECT, over every transport.

import { once } from 'node:events'
import http2 from 'node:http2'
import net, { type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import tls from 'node:tls'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import WebSocket from 'ws'
import duplex from '../../lib/index.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { CONNECT, GET, TLS, TRANSPORTS, UPGRADE, accepted, chunk, dial, serve, LEFT } from '../support/wire.ts'

function routes (app: FastifyInstance): void {
  app.addHttpMethod('CONNECT')
  const echo = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    await pipeline(reply.code(101).header('upgrade', 'x').duplex, reply.duplex)
  }
  app.route({ method: ['GET', 'POST'], url: '/x', duplex: true, handler: echo })
  app.post('/greeting', { duplex: true }, async (request, reply) => {
    reply.code(101).header('upgrade', 'x').duplex.write('hello ')
    await pipeline(reply.duplex, reply.duplex)
  })
  app.post('/refused', { duplex: true, onRequest: async (request, reply) => reply.code(403).send('no') }, echo)
  app.get('/other', { duplex: true }, async (request, reply) => reply.code(101).header('upgrade', 'y').duplex.end('never'))
  app.get('/426', { duplex: true }, (request, reply) => { reply.code(426).header('upgrade', 'x').duplex.end('upgrade first') })
  // Ends its side first, then reads until the client ends its side.
  app.get('/first', { duplex: true }, async (request, reply) => {
    reply.code(101).header('upgrade', 'x').duplex.end('all I have')
    request.log.info({ heard: await text(reply.duplex) }, 'heard')
  })
  app.get('/cut', { duplex: true }, async function * (request, reply) {
    reply.code(101).header('upgrade', 'x')
    yield 'half'
    await once(reply.duplex, 'readable')
    throw new Error('cut')
  })
  app.get('/silent', { duplex: { idleTimeout: 20 } }, async (request, reply) => {
    reply.code(101).header('upgrade', 'x').duplex.write('half')
    await text(reply.duplex)
  })
  app.route({
    method: 'CONNECT',
    url: '*',
    duplex: true,
    onRequest: async (request, reply) => {
      if (request.authority?.port === 22) return reply.code(403).send('not there')
      if (request.headers['proxy-authorization'] !== 'right') return reply.code(407).header('proxy-authenticate', 'Basic').send('who are you')
    },
    handler: async (request, reply) => {
      const { host, port } = request.authority!
      if (host === 'nowhere') return reply.code(502).send('no way')
      // Dropped from the head, which has no place for it.
      reply.header('x-to', `${host} ${port}`).header('content-length', 5)
      await pipeline(reply.duplex, reply.duplex)
    }
  })
  app.get('/plain', async (request) => String(request.authority))
}

for (const transport of TRANSPORTS) {
  t.test(`over ${transport}`, async (t) => {
    const { connect, logged, log, app } = await serve(t, transport, routes)

    await t.test('101: bytes both ways, each half closing on its own', async (t) => {
      const wire = await connect()
      const completed = logged('request completed')
      wire.send(UPGRADE('/x'))
      const head = await wire.head()
      t.match(head, { statusCode: 101, statusMessage: 'Switching Protocols' })
      t.match(head.fields, { connection: 'upgrade', upgrade: 'x', 'transfer-encoding': undefined, 'content-length': undefined, 'keep-alive': undefined })
      wire.send('0\r\n\r\n')
      t.equal(await wire.content(5), '0\r\n\r\n')
      wire.send(GET('/plain'))
      t.equal(await wire.content(GET('/plain').length), GET('/plain'))
      wire.socket.end('the last')
      t.equal(await wire.body(), 'the last')
      t.match(await completed, { res: { statusCode: 101 } })
    })

    await t.test('101 behind a body of the request', async (t) => {
      const wire = await connect()
      wire.send(UPGRADE('/x', 'Content-Length: 4\r\n', 'POST') + 'body' + 'raw')
      t.match(await wire.head(), { statusCode: 101 })
      t.equal(await wire.content(7), 'bodyraw')
      wire.send('more')
      t.equal(await wire.content(4), 'more')
      wire.socket.end()
      t.equal(await wire.body(), '')
      const whole = UPGRADE('/x', 'Transfer-Encoding: chunked\r\n', 'POST') + chunk('bo') + chunk('dy') + '0\r\n\r\n' + chunk('raw')
      for (let cut = whole.indexOf('\r\n\r\n') + 4; cut <= whole.length; cut++) {
        const wire = await connect()
        wire.send(whole.slice(0, cut))
        // The head comes with the first content, or when more is read after the end of the body.
        if (cut > whole.indexOf('bo')) t.match(await wire.head(), { statusCode: 101 })
        wire.send(whole.slice(cut))
        if (cut <= whole.indexOf('bo')) t.match(await wire.head(), { statusCode: 101 })
        wire.socket.end('.')
        t.equal(await wire.body(), 'body' + chunk('raw') + '.', `cut at ${cut}`)
      }
    })

    await t.test('100 before 101', async (t) => {
      const wire = await connect()
      wire.send(UPGRADE('/greeting', 'Content-Length: 4\r\nExpect: 100-continue\r\n', 'POST'))
      t.match(await wire.head(), { statusCode: 100 })
      t.match(await wire.head(), { statusCode: 101 })
      wire.send('bodyraw')
      wire.socket.end()
      t.equal(await wire.body(), 'hello bodyraw')
    })

    await t.test('the server ends its side first, the client later', async (t) => {
      const wire = await connect()
      const heard = logged('heard')
      wire.send(UPGRADE('/first'))
      await wire.head()
      t.equal(await wire.body(), 'all I have')
      wire.send('one')
      wire.socket.end('two')
      t.match(await heard, { heard: 'onetwo' })
    })

    await t.test('refusals are ordinary answers', async (t) => {
      const wire = await connect()
      t.match(await wire.request(UPGRADE('/refused', 'Content-Length: 1\r\n', 'POST') + 'a'), { statusCode: 403, body: 'no' })
      t.match(await wire.request(UPGRADE('/other')), { statusCode: 500, body: /FST_ERR_DUPLEX_UPGRADE/ })
      t.match(await wire.request(GET('/x')), { statusCode: 500, body: /FST_ERR_DUPLEX_UPGRADE/ })
      t.match(await wire.request('GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n'), { statusCode: 500, body: /FST_ERR_DUPLEX_UPGRADE/ })
      t.match(await wire.request(GET('/426')), { statusCode: 426, body: 'upgrade first', fields: { connection: 'upgrade, keep-alive', upgrade: 'x' } })
      t.match(await wire.request(GET('/plain')), { body: 'null' })
      t.match(await (await connect()).request('GET /x HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'), { statusCode: 500, body: /FST_ERR_DUPLEX_UPGRADE/ })
    })

    await t.test('CONNECT', async (t) => {
      const AUTH = 'Proxy-Authorization: right\r\n'
      const wire = await connect()
      t.match(await wire.request(CONNECT('a:1'), 'CONNECT'), { statusCode: 407, body: 'who are you', fields: { 'proxy-authenticate': 'Basic' } })
      t.match(await wire.request(CONNECT('a:22', AUTH), 'CONNECT'), { statusCode: 403, body: 'not there' })
      t.match(await wire.request(CONNECT('nowhere:1', AUTH), 'CONNECT'), { statusCode: 502, body: 'no way' })
      t.match(await wire.request(GET('/plain')), { body: 'null' })
      wire.send(CONNECT('[::1]:443', AUTH) + 'early')
      const head = await wire.head('CONNECT')
      t.match(head.fields, { 'x-to': '::1 443', connection: undefined, 'content-length': undefined, 'transfer-encoding': undefined })
      t.equal(await wire.content(5), 'early')
      wire.socket.end('late')
      t.equal(await wire.body(), 'late')
      for (const target of ['a', 'a:', ':1', 'a:0', 'a:65536', '[::g]:1', '::1:1', 'a:1x', 'a/b:1']) {
        const { statusCode, body } = await (await connect()).request(CONNECT(target, AUTH), 'CONNECT')
        t.equal(statusCode, 400, `${target}: ${body}`)
      }
      const framed = await connect()
      t.match(await framed.request(CONNECT('a:1', AUTH + 'Content-Length: 1\r\n') + 'a' + GET('/plain'), 'CONNECT'), { statusCode: 400, body: /FST_ERR_DUPLEX_FRAMING/ })
      await framed.ended
    })

    await t.test('a tunnel that is cut off', async (t) => {
      const wire = await connect()
      const errored = logged('request errored')
      wire.send(UPGRADE('/cut'))
      await wire.head()
      t.equal(await wire.content(4), 'half')
      wire.send('now')
      t.match(await errored, { err: { message: 'cut' } })
      await wire.ended
      const reset = await connect()
      const lost = logged(LEFT)
      reset.send(UPGRADE('/x') + 'a')
      await reset.head()
      await reset.content(1)
      if (transport === 'tcp') reset.socket.resetAndDestroy()
      else reset.socket.destroy()
      // Only TCP shows the reset. TLS and Unix sockets show a FIN.
      if (transport === 'tcp') t.match(await lost, { level: 30 })
    })

    await t.test('a tunnel that is idle for too long is reset, not ended', async (t) => {
      const wire = await connect()
      const errored = logged('request errored')
      const reset = once(wire.socket, 'error').then(([error]) => error.code, () => null)
      wire.send(UPGRADE('/silent'))
      t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
      await wire.ended
      if (transport === 'tcp') t.equal(await reset, 'ECONNRESET')
    })

    await t.test('no unexpected log lines', (t) => {
      const unexpected = log.filter((line) => line.level > 40 && !['cut', 'FST_ERR_DUPLEX_IDLE', 'FST_ERR_DUPLEX_NOT_ENDED'].includes(line.err?.code ?? line.err?.message ?? '') && line.err?.code !== 'FST_ERR_DUPLEX_UPGRADE')
      t.strictSame(unexpected, [])
      t.equal(app.initialConfig.http2, undefined)
      t.end()
    })
  })
}

t.test('beside @fastify/websocket', async (t) => {
  const { connect, port } = await serve(t, 'tcp', async (app) => {
    await app.register(websocket)
    app.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(`ws ${String(message)}`)) })
    routes(app)
  })
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`)
  t.teardown(() => socket.terminate())
  await once(socket, 'open')
  const wire = await connect()
  wire.send(UPGRADE('/x', 'Content-Length: 2\r\n', 'POST') + 'ab')
  await wire.head()
  t.equal(await wire.content(2), 'ab')
  socket.send('a')
  t.equal(String((await once(socket, 'message'))[0]), 'ws a')
  wire.send('cd')
  t.equal(await wire.content(2), 'cd')
})

t.test('over TLS, received data can still be read after both sides have ended', async (t) => {
  const readers: Record<string, (duplex: HttpDuplex) => Promise<string>> = {
    stream: text,
    detached: async (duplex) => {
      const { socket, head } = duplex.detach()
      await once(socket, 'close')
      return String(head)
    }
  }
  const { port, logged } = await serve(t, 'tls', (app) => {
    app.get('/:reader', { duplex: { highWaterMark: 16 * 1024 } }, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      const ended = Promise.all([once(duplex.socket!, 'end'), once(duplex.socket!, 'finish')])
      duplex.end()
      await once(duplex, 'readable')
      duplex.on('readable', () => {}) // keep reading
      await ended
      await immediate()
      const { length } = await readers[(request.params as { reader: string }).reader](duplex)
      request.log.info({ length, aborted: request.signal.aborted }, 'heard')
    })
  })
  for (const reader in readers) {
    const raw = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    const below = new Duplex({
      read () {},
      write (chunk, _encoding, done) {
        raw.write(chunk)
        done()
      }
    })
    raw.on('data', (chunk) => below.push(chunk))
    const socket = tls.connect({ socket: below, rejectUnauthorized: false })
    socket.write(UPGRADE(`/${reader}`))
    await once(socket, 'data')
    // TLS reads and decrypts all of this at once, although the stream wants less.
    raw.cork()
    socket.end('x'.repeat(60_000))
    await once(socket, 'finish')
    raw.uncork()
    raw.end()
    t.match(await logged('heard'), { length: 60_000, aborted: false }, reader)
    await once(raw, 'close')
  }
})

t.test('over injectDuplex', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  routes(app)
  const client = await app.injectDuplex({ url: '/x', headers: { upgrade: 'x' } })
  client.write('one')
  t.match(await client.response, { statusCode: 101, headers: { connection: 'upgrade', upgrade: 'x' } })
  t.equal(String((await once(client, 'data'))[0]), 'one')
  client.end('two')
  t.equal(await text(client), 'two')
  const posted = await app.injectDuplex({ method: 'POST', url: '/x', headers: { upgrade: 'x' }, payload: 'body' })
  posted.write('')
  posted.write('raw')
  posted.end()
  t.equal(await text(posted), 'bodyraw')
  const payload = (async function * () { yield 'a' })()
  await t.rejects(app.injectDuplex({ method: 'POST', url: '/x', headers: { upgrade: 'x' }, payload }), { code: 'FST_ERR_DUPLEX_OPTION' })
  const connected = await app.injectDuplex({ method: 'CONNECT', url: 'example.com:80', headers: { 'proxy-authorization': 'right' } })
  connected.end('through')
  t.match(await connected.response, { statusCode: 200, headers: { 'x-to': 'example.com 80' } })
  t.equal(await text(connected), 'through')
  const refused = await app.injectDuplex({ method: 'CONNECT', url: 'example.com:80' })
  const next = refused.next({ url: '/plain' })
  refused.write('dropped')
  t.equal((await refused.response).statusCode, 407)
  t.equal(await text(refused), 'who are you')
  t.equal(await text(next), 'null')
})

t.test('injectDuplex: the body of a refused Upgrade ends once, an empty one too', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  routes(app)
  app.post('/echo', { duplex: true }, async (request, reply) => pipeline(reply.duplex, reply.duplex))
  const refused = await app.injectDuplex({ method: 'POST', url: '/refused', headers: { upgrade: 'x' }, payload: '' })
  const next = refused.next({ method: 'POST', url: '/echo' })
  const last = refused.next({ url: '/plain' })
  t.equal(await text(refused), 'no')
  next.write('still open')
  t.equal(String((await once(next, 'data'))[0]), 'still open')
  next.end()
  t.equal(await text(next), '')
  t.equal(await text(last), 'null')
})

t.test('over app.inject(), which has no connection', async (t) => {
  const app = Fastify()
  await app.register(duplex)
  routes(app)
  const response = await app.inject({ url: '/x', headers: { connection: 'upgrade', upgrade: 'x' } })
  t.match(response, { statusCode: 501, payload: /FST_ERR_DUPLEX_TUNNEL/, headers: { upgrade: undefined } })
})

t.test('over HTTP/2', async (t) => {
  for (const options of [{ http2: true, http2SessionTimeout: 0 }, { http2: true, https: { ...TLS, allowHTTP1: true, settings: { enableConnectProtocol: true } } }]) {
    const app = Fastify(options as object) as unknown as FastifyInstance
    t.teardown(() => app.close())
    await app.register(duplex)
    routes(app)
    app.route({
      method: 'CONNECT',
      url: '/extended',
      duplex: true,
      handler: async (request, reply) => {
        t.equal(request.authority, null)
        await pipeline(reply.duplex, reply.duplex)
      }
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as AddressInfo
    const session = http2.connect(`${'https' in options ? 'https' : 'http'}://127.0.0.1:${port}`, { rejectUnauthorized: false })
    t.teardown(() => session.destroy())
    if ('https' in options) await once(session, 'remoteSettings')
    const open = async (headers: http2.OutgoingHttpHeaders): Promise<[http2.ClientHttp2Stream, http2.IncomingHttpHeaders]> => {
      const stream = session.request(headers, { endStream: false })
      return [stream, (await once(stream, 'response'))[0]]
    }
    const [stream, head] = await open({ ':method': 'CONNECT', ':authority': 'example.com:443', 'proxy-authorization': 'right' })
    t.match(head, { ':status': 200, 'x-to': 'example.com 443', 'content-length': undefined })
    stream.write('one')
    t.equal(String((await once(stream, 'data'))[0]), 'one')
    stream.end('two')
    t.equal(await text(stream), 'two')
    const [refused, { ':status': status }] = await open({ ':method': 'CONNECT', ':authority': 'example.com:443' })
    t.equal(status, 407)
    t.equal(await text(refused), 'who are you')
    const [bad, { ':status': badStatus }] = await open({ ':method': 'CONNECT', ':authority': 'example.com', 'proxy-authorization': 'right' })
    t.equal(badStatus, 400)
    bad.close()
    const [switching, { ':status': switchStatus }] = await open({ ':path': '/x' })
    t.equal(switchStatus, 500, 'there is no 101 in HTTP/2')
    t.match(await text(switching), 'ERR_HTTP2_INFO_STATUS_NOT_ALLOWED')
    if (!('https' in options)) continue
    const [extended] = await open({ ':method': 'CONNECT', ':protocol': 'x', ':path': '/extended', ':scheme': 'https', ':authority': 'a' })
    extended.end('extended')
    t.equal(await text(extended), 'extended')
    const wire = await dial('tls', { port, host: '127.0.0.1' })
    t.match(await wire.request(CONNECT('/extended'), 'CONNECT'), { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/ }, 'a path is for HTTP/2 alone')
    await wire.ended
  }
})

t.test('1 GiB through a tunnel, both ways at once', async (t) => {
  const SIZE = 1024 ** 3
  const BLOCK = Buffer.from(Array.from({ length: 65_536 * 3 + 1 }, (_, i) => (i * 7 + (i >> 8)) & 0xff))
  const { port } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      await Promise.all([pipeline(source, reply.code(101).header('upgrade', 'x').duplex), pipeline(duplex, check)])
    })
  })
  async function * source (): AsyncGenerator<Buffer> {
    for (let sent = 0; sent < SIZE; sent += BLOCK.length) yield BLOCK.subarray(0, SIZE - sent)
  }
  const seen: number[] = []
  async function check (stream: AsyncIterable<Buffer>): Promise<void> {
    let size = 0
    for await (const chunk of stream) {
      for (let at = 0; at < chunk.length;) {
        const here = (size + at) % BLOCK.length
        const length = Math.min(chunk.length - at, BLOCK.length - here)
        if (BLOCK.compare(chunk, at, at + length, here, here + length) !== 0) throw new Error(`other bytes near ${size}`)
        at += length
      }
      size += chunk.length
    }
    seen.push(size)
  }
  async function * behindHead (stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let head: Buffer | null = Buffer.alloc(0)
    for await (const chunk of stream) {
      if (head === null) {
        yield chunk
        continue
      }
      head = Buffer.concat([head, chunk])
      const end = head.indexOf('\r\n\r\n')
      if (end === -1) continue
      yield head.subarray(end + 4)
      head = null
    }
  }
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.write(UPGRADE('/'))
  await Promise.all([pipeline(source, socket), check(behindHead(socket.iterator({ destroyOnReturn: false })))])
  while (seen.length < 2) await new Promise((resolve) => setImmediate(resolve))
  t.strictSame(seen, [SIZE, SIZE])
})

t.test('a tunnel that fails while its end is being sent', async (t) => {
  // A socket that is shutting down cannot be reset. In which of these ticks it does so depends on Node.
  for (let ticks = 0; ticks < 8; ticks++) {
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.addHttpMethod('CONNECT')
      app.route({
        method: 'CONNECT',
        url: '*',
        duplex: true,
        async handler (_request, reply) {
          const { duplex } = reply
          duplex.end()
          for (let tick = 0; tick < ticks; tick++) await new Promise<void>((resolve) => process.nextTick(resolve))
          duplex.destroy(new Error('the target has sent a reset'))
        }
      })
    })
    const [wire, socket] = await accepted(app, connect)
    const closed = once(socket, 'close')
    wire.send('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n')
    await closed
    t.equal(await new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count))), 0, `after ${ticks} ticks`)
  }
})

t.test('docs/tunnels.md: CONNECT to a target that ends its side and resets', async (t) => {
  const target = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    socket.end()
    setImmediate(() => socket.resetAndDestroy())
  }).listen(0, '127.0.0.1')
  t.teardown(() => target.close())
  await once(target, 'listening')
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({
      method: 'CONNECT',
      url: '*',
      duplex: true,
      async handler (request, { duplex }) {
        const upstream = net.connect(request.authority!.port, request.authority!.host)
        await once(upstream, 'connect')
        await pipeline(upstream, duplex, upstream)
      }
    })
  }, { fastify: { disableRequestLogging: true } })
  const { port } = target.address() as net.AddressInfo
  const closed: Promise<unknown>[] = []
  app.server.on('connection', (socket: Socket) => { closed.push(new Promise((resolve) => socket.once('close', resolve))) })
  await Promise.all(Array.from({ length: 50 }, async () => {
    const wire = await connect()
    wire.send(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: a\r\n\r\n`)
    await wire.ended
  }))
  t.equal(closed.length, 50)
  await Promise.all(closed)
})
