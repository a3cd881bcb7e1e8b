// Where HTTP ends and another protocol begins: 101, CONNECT and detach(), over every transport.

import { once } from 'node:events'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import tls from 'node:tls'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import WebSocket, { WebSocketServer } from 'ws'
import duplex from '../../lib/index.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { GET, TLS, TRANSPORTS, chunk, chunked, dial, serve } from '../support/wire.ts'

const UPGRADE = (path: string, fields = '', method = 'GET'): string =>
  `${method} ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n${fields}\r\n`
const CONNECT = (target: string, fields = ''): string => `CONNECT ${target} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`

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
  // Says all it has, and hears the client out after that.
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
        // The head comes with the first content, or with the wish for more behind the body.
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

    await t.test('what the server says first, and what the client says after', async (t) => {
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
      const lost = logged('request errored')
      reset.send(UPGRADE('/x') + 'a')
      await reset.head()
      await reset.content(1)
      if (transport === 'tcp') reset.socket.resetAndDestroy()
      else reset.socket.destroy()
      // A FIN is all one sees of it, but over TCP.
      if (transport === 'tcp') t.match(await lost, { err: { code: 'FST_ERR_DUPLEX_ABORTED' } })
    })

    await t.test('a tunnel that is silent for too long does not end like one that is over', async (t) => {
      const wire = await connect()
      const errored = logged('request errored')
      const reset = once(wire.socket, 'error').then(([error]) => error.code, () => null)
      wire.send(UPGRADE('/silent'))
      t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
      await wire.ended
      if (transport === 'tcp') t.equal(await reset, 'ECONNRESET')
    })

    await t.test('nothing was logged that should not be', (t) => {
      const unexpected = log.filter((line) => line.level > 40 && !['cut', 'FST_ERR_DUPLEX_ABORTED', 'FST_ERR_DUPLEX_IDLE'].includes(line.err?.code ?? line.err?.message ?? '') && line.err?.code !== 'FST_ERR_DUPLEX_UPGRADE')
      t.strictSame(unexpected, [])
      t.equal(app.initialConfig.http2, undefined)
      t.end()
    })
  })
}

t.test('without a route for it CONNECT is left to Node', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/plain', async () => 'plain')
  })
  const wire = await connect()
  wire.send(CONNECT('a:1'))
  await wire.ended
  await t.rejects(wire.head())
})

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

t.test('over TLS, what has come waits to be read when both sides have ended', async (t) => {
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
      duplex.on('readable', () => {}) // who will read on
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
      write (piece, _encoding, done) {
        raw.write(piece)
        done()
      }
    })
    raw.on('data', (piece) => below.push(piece))
    const socket = tls.connect({ socket: below, rejectUnauthorized: false })
    socket.write(UPGRADE(`/${reader}`))
    await once(socket, 'data')
    // Read in one go, and so decrypted to its end, however little of it is wanted yet.
    raw.cork()
    socket.end('x'.repeat(60_000))
    await once(socket, 'finish')
    raw.uncork()
    raw.end()
    t.match(await logged('heard'), { length: 60_000, aborted: false }, reader)
    await once(raw, 'close')
  }
})

t.test('detach() after the client has ended its side', async (t) => {
  for (const rest of ['', 'rest']) {
    let got = ''
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.get('/', { duplex: true }, async (request, reply) => {
        await ended
        await immediate()
        const { socket, head } = reply.duplex.detach()
        got += String(head)
        socket.on('end', () => socket.end(`bye ${got}`))
      })
    })
    let tell = (): void => {}
    const ended = new Promise<void>((resolve) => { tell = resolve })
    app.server.on('connection', (socket) => socket.on('end', tell))
    const wire = await connect()
    let answer = ''
    wire.socket.on('data', (piece) => { answer += String(piece) })
    wire.socket.end(GET('/') + rest)
    await wire.ended
    t.equal(answer, `bye ${rest}`)
  }
})

t.test('detach()', async (t) => {
  const wss = new WebSocketServer({ noServer: true })
  wss.on('connection', (socket) => { socket.on('message', (message) => socket.send(`ws ${String(message)}`)) })
  const codes: unknown[] = []
  const responses: string[] = []
  let detached!: net.Socket
  let flowing!: FastifyReply['duplex']
  const code = (action: () => unknown): void => {
    try {
      action()
      codes.push('nothing')
    } catch (error) {
      codes.push((error as { code: string }).code)
    }
  }
  const { app, connect, port, log, logged } = await serve(t, 'tcp', (app) => {
    app.addHook('onResponse', async (request) => { responses.push(request.url) })
    // At once, and after the head of a tunnel.
    app.get('/ws', { duplex: true }, (request, reply) => {
      const { socket, head } = reply.duplex.detach({ counted: false })
      wss.handleUpgrade(request.raw, socket, head, (client) => { wss.emit('connection', client, request.raw) })
    })
    app.post('/raw', { duplex: true }, async (request, reply) => {
      const stream = reply.duplex
      code(() => stream.detach())
      t.equal(await text(stream), 'body')
      const { socket, head } = stream.detach()
      detached = socket
      socket.write(`raw ${String(head)}`)
      socket.on('data', (piece) => socket.write(piece))
      socket.on('end', () => socket.end())
      for (const action of [() => stream.detach(), () => stream.flushHeaders(), () => stream.setTrailers({}), () => stream.writeInformation(102)]) code(action)
      stream.write('a', (error) => { codes.push((error as unknown as { code: string }).code) })
      await stream.toArray().catch((error) => { codes.push(error.code) })
    })
    app.get('/tunnel', { duplex: true }, async (request, reply) => {
      reply.code(101).header('upgrade', 'x').duplex.write('mine ')
      await once(reply.duplex, 'readable')
      const { socket, head } = reply.duplex.detach()
      socket.end(`yours ${String(head)}`)
    })
    app.get('/at-once', { duplex: true }, (request, reply) => {
      reply.code(101).header('upgrade', 'x').duplex.write('mine ')
      reply.duplex.detach().socket.end('yours')
    })
    app.get('/congested', { duplex: true }, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      duplex.write(Buffer.alloc(20_000_000))
      await new Promise((resolve) => setImmediate(resolve))
      duplex.write('more')
      await new Promise((resolve) => setImmediate(resolve))
      code(() => duplex.detach())
      duplex.destroy(new Error('congested'))
    })
    app.get('/flowing', { duplex: true }, async (request, reply) => {
      flowing = reply.code(101).header('upgrade', 'x').duplex.setEncoding('latin1')
      flowing.flushHeaders()
      flowing.once('data', (first) => {
        flowing.pause().once('data', (second) => {
          const { socket, head } = flowing.detach()
          socket.end(`${first} ${second} ${String(head)}`)
        })
      })
    })
    app.get('/stopped', { duplex: true }, async (request, reply) => {
      const stream = reply.code(101).header('upgrade', 'x').duplex
      stream.flushHeaders()
      // Until there is more than the stream holds.
      while (stream.readableLength < stream.readableHighWaterMark) await once(stream, 'readable').then(() => stream.read(0))
      const { socket, head } = stream.detach()
      let size = head.length
      socket.on('data', (piece) => { size += piece.length })
      socket.on('end', () => socket.end(String(size)))
    })
    app.get('/begun', { duplex: true }, async (request, reply) => {
      await new Promise((resolve) => { reply.duplex.write('begun', resolve) })
      code(() => reply.duplex.detach())
      reply.duplex.end()
    })
    app.post('/unread', { duplex: true }, async (request, reply) => {
      await once(reply.duplex, 'readable')
      code(() => reply.duplex.detach())
      reply.duplex.end(await text(reply.duplex))
    })
    app.get('/hook', { duplex: true, onRequest: (request, reply, done) => { code(() => reply.duplex.detach()); done() } }, (request, reply) => {
      reply.duplex.end('hooked')
    })
    app.get('/answered', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      reply.send('answered')
      code(() => duplex.detach())
      return reply
    })
    app.get('/over', { duplex: true }, async (request, reply) => {
      await once(reply.duplex.resume().end('over'), 'close')
      code(() => reply.duplex.detach())
    })
    app.get('/throws', { duplex: true }, async (request, reply) => {
      const { socket } = reply.duplex.detach()
      socket.end('thrown')
      throw new Error('after it')
    })
    app.get('/turn', { duplex: true }, (request, reply) => {
      code(() => reply.duplex.detach())
      reply.duplex.end('mine')
    })
    app.get('/slow', async () => { await new Promise((resolve) => setImmediate(resolve)); return 'slow' })
  })

  await t.test('hands the connection to another library', async (t) => {
    const client = new WebSocket(`ws://127.0.0.1:${port}/ws`)
    await once(client, 'open')
    client.send('hello')
    t.equal(String((await once(client, 'message'))[0]), 'ws hello')
    t.equal(responses.pop(), '/ws')
    client.close()
    await once(client, 'close')
  })

  await t.test('after the request body, with what came behind it', async (t) => {
    const wire = await connect()
    let received = ''
    wire.socket.on('data', (piece: Buffer) => { received += piece.toString() })
    wire.send(chunked('/raw', 'body') + 'behind')
    while (!received.endsWith('behind')) await once(wire.socket, 'data')
    wire.send('on')
    while (!received.endsWith('on')) await once(wire.socket, 'data')
    t.equal(received, 'raw behindon')
    t.equal(detached.timeout ?? 0, 0)
    wire.socket.end()
    await wire.ended
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_DETACH', ...Array(6).fill('FST_ERR_DUPLEX_DETACHED')])
  })

  await t.test('in a tunnel, with what nobody has read', async (t) => {
    const wire = await connect()
    wire.send(UPGRADE('/tunnel') + 'unread')
    await wire.head()
    t.equal(await wire.body(), 'mine yours unread')
    const atOnce = await connect()
    atOnce.send(UPGRADE('/at-once'))
    await atOnce.head()
    t.equal(await atOnce.body(), 'mine yours')
    const congested = await connect()
    congested.socket.pause()
    const errored = logged('request errored')
    congested.send(UPGRADE('/congested'))
    t.match(await errored, { err: { message: 'congested' } })
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_DETACH'])
  })

  await t.test('in a tunnel that flows, with all that was still to come', async (t) => {
    const wire = await connect()
    wire.send(UPGRADE('/flowing') + 'a')
    await wire.head()
    for (const [i, byte] of [...'bcd'].entries()) {
      wire.send(byte)
      while (flowing.readableLength === i) await new Promise((resolve) => setImmediate(resolve))
    }
    flowing.resume()
    t.equal(await wire.body(), 'a b cd')
  })

  await t.test('in a tunnel under backpressure', async (t) => {
    const wire = await connect()
    wire.send(UPGRADE('/stopped'))
    await wire.head()
    wire.socket.end(Buffer.alloc(3_000_000))
    t.equal(await wire.body(), '3000000')
  })

  await t.test('not where the connection is not one', async (t) => {
    const wire = await connect()
    t.equal((await wire.request(GET('/begun'))).body, 'begun')
    t.equal((await wire.request(GET('/answered'))).body, 'answered')
    t.equal((await wire.request(GET('/over'))).body, 'over')
    t.equal((await wire.request(chunked('/unread', 'body'))).body, 'body')
    t.equal((await wire.request(GET('/hook'))).body, 'hooked')
    wire.send(GET('/slow') + GET('/turn'))
    t.equal((await wire.response()).body, 'slow')
    t.equal((await wire.response()).body, 'mine')
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_DETACH', 'FST_ERR_DUPLEX_HEAD_SENT', ...Array(4).fill('FST_ERR_DUPLEX_DETACH')])
    t.match(await app.inject('/turn'), { payload: 'mine' })
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_TUNNEL'])
    const thrown = await connect()
    thrown.send(GET('/throws'))
    await thrown.ended
    t.equal(log.filter((line) => line.level > 40).map((line) => line.msg).join(), 'request errored,duplex handler failed after its response')
  })
})

t.test('a detached connection counts when the app closes, unless told otherwise', async (t) => {
  for (const counted of [true, false]) {
    let detached!: (socket: net.Socket) => void
    const socket = new Promise<net.Socket>((resolve) => { detached = resolve })
    let closing = false
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.get('/', { duplex: true }, (request, reply) => {
        reply.duplex.on('shutdown', () => { closing = true })
        detached(reply.duplex.detach({ counted }).socket)
      })
    }, { forceCloseConnections: false })
    const wire = await connect()
    wire.send(GET('/'))
    const theirs = await socket
    theirs.on('error', () => {})
    const closed = app.close()
    if (counted) {
      // After `closeGrace`, which is none here.
      await once(theirs, 'close')
      await closed
    } else {
      // Nobody ends it but its owner, and the server waits for that.
      while (app.server.listening) await new Promise((resolve) => setImmediate(resolve))
      t.notOk(theirs.destroyed)
      theirs.end('bye')
      wire.socket.end()
      await closed
    }
    t.equal(closing, counted)
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

for (const version of [1, 2]) {
  t.test(`the target of CONNECT is no path, whatever a router makes of it, HTTP/${version}`, async (t) => {
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
      http2: version === 2,
      rewriteUrl: (request: { url: string }) => request.url,
      genReqId: (request: { url: string }) => { see('id', request.url) }
    }, {}, (app) => {
      app.addHttpMethod('CONNECT')
      app.route({ method: 'CONNECT', url: '*', constraints: { version: '4.0.0' }, handler: async (request, reply) => reply.code(403).send(`before ${request.url}`) })
      app.register(async (sibling) => {
        sibling.route({ method: 'CONNECT', url: '*', constraints: { version: '5.0.0' }, handler: async (request, reply) => reply.code(403).send(`beside ${request.url}`) })
      })
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
    // Refused for what they are, by us, not by a router. Most of them Node refuses itself over HTTP/2.
    for (const target of ['a', 'a;b:1', 'a?b:1', '*', 'a%zz:1', 'http://a:1/'].slice(0, version === 2 ? 2 : 6)) {
      t.match(await ask(target, '1.0.0'), { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/ }, target)
    }
  })
}

t.test('a CONNECT request whose URL the app has rewritten', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '/proxy', duplex: true, handler: async ({ url, originalUrl, params }, reply) => reply.code(403).send({ url, originalUrl, params }) })
  }, { rewriteUrl: () => '/proxy' })
  const { body } = await (await connect()).request(CONNECT('example.com:443'), 'CONNECT')
  t.strictSame(JSON.parse(body), { url: '/proxy', originalUrl: 'example.com:443', params: {} })
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

t.test('a malformed target of CONNECT never gets to the handler', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '*', duplex: true, handler: () => t.fail('called') })
    app.get('/plain', async () => 'plain')
  })
  const wire = await connect()
  t.match(await wire.request(CONNECT('a'), 'CONNECT'), { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/ })
  t.match(await wire.request(GET('/plain')), { body: 'plain' })
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
    for await (const piece of stream) {
      for (let at = 0; at < piece.length;) {
        const here = (size + at) % BLOCK.length
        const length = Math.min(piece.length - at, BLOCK.length - here)
        if (BLOCK.compare(piece, at, at + length, here, here + length) !== 0) throw new Error(`other bytes near ${size}`)
        at += length
      }
      size += piece.length
    }
    seen.push(size)
  }
  async function * behindHead (stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let head: Buffer | null = Buffer.alloc(0)
    for await (const piece of stream) {
      if (head === null) {
        yield piece
        continue
      }
      head = Buffer.concat([head, piece])
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
