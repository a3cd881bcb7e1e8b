// Exchanges on their way: both bodies as they come, trailers, interim responses, Expect, tunnels, early answers.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import websocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import WebSocket, { WebSocketServer } from 'ws'
import type { Call } from '../../lib/client/call.ts'
import { Agent, open } from '../../lib/client/index.ts'
import type { HttpDuplex } from '../../lib/exchange/http-duplex.ts'
import { duplexProxy, proxy } from '../../lib/proxy/index.ts'
import { startersOf } from '../support/http1.ts'
import { CONNECT, GET, OPEN, UPGRADE, type Wire, chunk, chunked, serve, untilStuck } from '../support/wire.ts'
import { type Peer, RESETS, lines, ok, serveProxy, upstream } from './support.ts'

const starters = startersOf(t)
const MB = 1024 * 1024

for (const [kind, start] of Object.entries(starters)) {
  t.test(`both directions at once, trailers both ways, ${kind}`, async (t) => {
    const origin = await upstream(t)
    const { connect, logged, agent } = await serveProxy(t, origin.url, { start })
    const wire = await connect()
    for (let round = 0; round < 3; round++) {
      wire.send('POST /talk HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n')
      const peer = round === 0 ? await origin.next() : origin.peers[0]
      t.strictSame(lines(await peer.head()).filter((line) => !line.startsWith('host')), ['POST /talk HTTP/1.1', 'connection: te', 'te: trailers', 'trailer: x-sum', 'transfer-encoding: chunked'])
      peer.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      t.match(await wire.head(), { statusCode: 200, fields: { 'transfer-encoding': 'chunked' } }, 'the head comes without content')
      for (const word of ['one', 'two', 'three']) {
        wire.send(chunk(word))
        t.equal(await peer.until('\r\n') + await peer.until('\r\n'), chunk(word))
        peer.send(chunk(word.toUpperCase()))
        t.equal(await wire.content(), word.toUpperCase())
      }
      const completed = logged('request completed')
      wire.send('0\r\nX-Sum: 3\r\nX-Other: a\r\n\r\n')
      t.equal(await peer.until('\r\n\r\n'), '0\r\nx-sum: 3\r\nx-other: a\r\n\r\n')
      peer.send('0\r\nX-Got: 1\r\n\r\n')
      await wire.body()
      await completed
    }
    const answered = wire.request(chunked('/x', 'a'))
    const [peer] = origin.peers
    await peer.until('0\r\n\r\n')
    peer.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-Got: 1\r\nX-Got: 2\r\n\r\n')
    t.match(await answered, { body: 'ok', trailers: { 'x-got': '1, 2' } }, 'trailers that come with the head')
    t.match(await wire.request(GET('/next')), { body: 'next' })
    t.equal(agent.connections, 1, 'one connection serves all')
  })

  t.test(`the streams of an exchange that is over refer to nothing of it, ${kind}`, async (t) => {
    const origin = await upstream(t, (peer) => { peer.socket.on('data', () => peer.send(ok('done'))) })
    const agent = new Agent()
    const calls: Call[] = []
    const streams: HttpDuplex[] = []
    const send = agent.send.bind(agent)
    agent.send = (call, ...rest) => {
      calls.push(call)
      send(call, ...rest)
    }
    const { connect, logged } = await serveProxy(t, origin.url, {
      start,
      options: { agent },
      setup: (app) => app.addHook('onResponse', async (_request, { duplex }) => { streams.push(duplex as HttpDuplex) })
    })
    t.teardown(() => agent.close())
    const wire = await connect()
    const completed = logged('request completed')
    await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na')
    await completed
    const left = await connect()
    left.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n')
    while (calls.length < 2) await immediate()
    left.socket.destroy()
    for (const call of calls) {
      while (call.eventNames().length > 1) await immediate()
      t.strictSame(call.eventNames(), ['error'])
      t.equal(call.receiver, null)
    }
    const [{ receiver, halfCloseListener }] = streams
    t.strictSame([receiver, halfCloseListener], [null, null])
  })

  t.test(`bodies of known length, ${kind}`, async (t) => {
    const origin = await upstream(t)
    const { connect } = await serveProxy(t, origin.url, { start })
    const wire = await connect()
    wire.send('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0010\r\n\r\nhello')
    const peer = await origin.next()
    t.match(await peer.head(), /\r\ncontent-length: 10\r\n/)
    await peer.until('hello')
    peer.send('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc')
    t.match(await wire.head(), { fields: { 'content-length': '6' } })
    t.equal(await wire.content(), 'abc')
    wire.send('world')
    await peer.until('world')
    peer.send('def')
    t.equal(await wire.body(), 'def')
    t.equal(peer.received, '')
    t.match(await wire.request(GET('/next')), { body: 'next' })
  })

  t.test(`a handler that pipes more into a call than the call has announced, ${kind}`, async (t) => {
    const origin = await upstream(t)
    const { app, connect } = await start(t, (app) => {
      app.post('/', { duplex: true }, async (request, { duplex }) => {
        const call = open(origin.url, { method: 'PUT', headers: { 'content-length': 5 } })
        duplex.pipe(call)
        await once(call, 'close')
      })
    })
    const wire = await connect()
    wire.send(OPEN('/') + chunk('one'))
    const peer = await origin.next()
    await peer.until('one')
    wire.send(chunk('two'))
    t.match(JSON.parse((await wire.response()).body), { code: 'FST_ERR_DUPLEX_LENGTH' })
    t.equal(peer.received, '')
    await app.close()
  })

  t.test(`hooks that read or watch the body, ${kind}`, async (t) => {
    const bodies: string[] = []
    const origin = await upstream(t, async (peer) => {
      for (;;) {
        bodies.push((await peer.until('0\r\n\r\n')).split('\r\n\r\n')[1])
        peer.send(ok('response'))
      }
    })
    const kept: Buffer[] = []
    const seen: string[] = []
    const { connect } = await serveProxy(t, origin.url, {
      start,
      setup: (app) => {
        app.addHook('preHandler', async ({ url }, { duplex }) => {
          if (url === '/next') return
          if (url.endsWith('watch')) duplex.on('data', (content) => { seen.push(content.toString()) })
          if (url.endsWith('peek')) {
            await once(duplex, 'readable')
            seen.push(duplex.read(2).toString())
          }
          if (url.endsWith('keep')) {
            const { end } = duplex
            duplex.end = (content: any) => {
              kept.push(content)
              return (end as Function).call(duplex, content)
            }
          }
        })
      }
    })
    const wire = await connect()
    for (const [url, passed] of [['/watch', 'hello'], ['/peek', 'llo'], ['/keep', 'hello']]) {
      t.match(await wire.request(chunked(url, 'hello')), { statusCode: 200, body: 'response' })
      t.match(await wire.request(GET('/next')), { body: 'next' })
      t.equal(bodies.pop(), `${chunk(passed)}0`)
    }
    t.strictSame(seen, ['hello', 'he'])
    t.equal(Buffer.concat(kept).toString(), 'response', 'what a hook has kept does not change')
  })

  t.test(`interim responses, ${kind}`, async (t) => {
    const origin = await upstream(t)
    const { connect } = await serveProxy(t, origin.url, { start })
    const wire = await connect()
    wire.send(GET('/'))
    const peer = await origin.next()
    await peer.head()
    peer.send('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 7\r\nConnection: x-drop\r\nX-Drop: 1\r\nTransfer-Encoding: chunked\r\n\r\n')
    t.match(await wire.head(), { statusCode: 103, fields: { link: '</a>; rel=preload', 'x-drop': undefined, 'content-length': undefined, 'transfer-encoding': undefined } }, 'no 100: the client has not asked')
    peer.send(ok('ok'))
    t.match(await wire.response(), { statusCode: 200, body: 'ok' })
    const old = await connect()
    old.send('GET / HTTP/1.0\r\n\r\n')
    await peer.head()
    peer.send('HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n' + ok('ok'))
    t.match(await old.response(), { statusCode: 200, body: 'ok' }, 'HTTP/1.0 gets none')
  })
}

t.test('HTTP/2 in front', async (t) => {
  const origin = await upstream(t)
  const { port } = await serveProxy(t, origin.url, { serve: { fastify: { http2: true } } })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  t.teardown(() => session.destroy())
  const stream = session.request({ ':method': 'POST', ':path': '/' }, { waitForTrailers: true } as object)
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-up': '1' }))
  stream.write('one')
  const peer = await origin.next()
  t.match(await peer.head(), /\r\ntransfer-encoding: chunked\r\n/)
  await peer.until('one')
  peer.send('HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 1\r\n\r\nHTTP/1.1 200 Own Words\r\nTransfer-Encoding: chunked\r\nKeep-Alive: x\r\n\r\n' + chunk('ONE'))
  await once(stream, 'response')
  t.equal(String((await once(stream, 'data'))[0]), 'ONE')
  stream.end('two')
  t.match(await peer.until('0\r\nx-up: 1\r\n\r\n'), /two/)
  const trailers = once(stream, 'trailers')
  stream.resume()
  peer.send('0\r\nX-Down: 2\r\n\r\n')
  t.match((await trailers)[0], { 'x-down': '2' })
  const cut = session.request({ ':method': 'POST', ':path': '/' })
  await peer.head()
  peer.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
  await once(cut, 'response')
  await once(cut, 'data')
  peer.socket.destroy()
  await t.rejects(once(cut, 'end'), 'a cut-off is a reset')
  const left = session.request({ ':method': 'POST', ':path': '/' })
  left.write('x')
  const other = await origin.next()
  await other.until('x')
  left.on('error', () => {}).destroy()
  await other.ended
  t.pass('a client that leaves')
})

t.test('Expect: the server is asked for the body first', async (t) => {
  const origin = await upstream(t)
  const HEAD = 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n'
  const begin = async (options = {}): Promise<[Wire, Peer]> => {
    const { connect } = await serveProxy(t, origin.url, { options: { expectTimeout: 60_000, ...options } })
    const wire = await connect()
    const next = origin.next()
    wire.send(HEAD)
    const peer = await next
    t.match(await peer.head(), /\r\nexpect: 100-continue\r\n/)
    return [wire, peer]
  }

  await t.test('100', async (t) => {
    const [wire, peer] = await begin()
    await untilStuck(() => wire.pending)
    t.equal(wire.pending, 0, 'the client is not asked yet')
    peer.send('HTTP/1.1 100 Continue\r\nX: y\r\n\r\n')
    t.match(await wire.head(), { statusCode: 100 })
    wire.send('hello')
    await peer.until('hello')
    peer.send(ok('ok'))
    t.match(await wire.response(), { statusCode: 200, body: 'ok' })
    t.match(await wire.request(GET('/next')), { body: 'next' })
  })

  await t.test('an error instead', async (t) => {
    const [wire, peer] = await begin()
    peer.send('HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno')
    t.match(await wire.response(), { statusCode: 417, body: 'no', fields: { connection: 'close' } })
    t.equal(await peer.until('').then(() => peer.received), '')
    await peer.ended
    t.equal(peer.received, '', 'no body, and no other request on this connection')
    await wire.ended
    t.equal(wire.pending, 0, 'the client was not asked')
  })

  const offer = async (t: Test): Promise<[Wire, Peer]> => {
    const { connect } = await serveProxy(t, origin.url, { options: { expectTimeout: 60_000 } })
    const wire = await connect()
    const next = origin.next()
    wire.send(UPGRADE('/', 'Expect: 100-continue\r\nContent-Length: 5\r\n', 'POST'))
    const peer = await next
    await peer.head()
    return [wire, peer]
  }

  await t.test('an error instead, to an offer of another protocol', async (t) => {
    const [wire, peer] = await offer(t)
    peer.send('HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno')
    t.match(await wire.response(), { statusCode: 400, body: 'no', fields: { connection: 'close' } }, 'the client was not asked')
    await peer.ended
  })

  await t.test('a 101 instead', async (t) => {
    const [wire, peer] = await offer(t)
    peer.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
    let head = await wire.head()
    if (head.statusCode === 100) head = await wire.head()
    t.equal(head.statusCode, 101)
    wire.send('hellotunnel')
    t.equal(await peer.until('tunnel'), 'hellotunnel')
    wire.socket.end()
    await peer.ended
    peer.socket.end()
  })

  await t.test('a 2xx instead', async (t) => {
    const [wire, peer] = await begin()
    peer.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
    let head = await wire.head()
    if (head.statusCode === 100) head = await wire.head()
    t.equal(head.statusCode, 200)
    wire.send('hello')
    await peer.until('hello')
    peer.send(chunk('ok') + '0\r\n\r\n')
    t.equal(await wire.body(), 'ok')
    t.match(await wire.request(GET('/next')), { body: 'next' })
  })

  await t.test('nothing for a while', async (t) => {
    const [wire, peer] = await begin({ expectTimeout: 1 })
    t.match(await wire.head(), { statusCode: 100 })
    wire.send('hello')
    await peer.until('hello')
    peer.send(ok('ok'))
    t.match(await wire.response(), { body: 'ok' })
  })

  await t.test('the server dies', async (t) => {
    const [wire, peer] = await begin()
    peer.socket.destroy()
    t.match(await wire.response(), { statusCode: 502 })
  })

  await t.test('the client leaves', async (t) => {
    const [wire, peer] = await begin()
    wire.socket.destroy()
    await peer.ended
    t.equal(peer.received, '')
  })
})

t.test('tunnels', async (t) => {
  const origin = await upstream(t)
  const { connect, logged, agent } = await serveProxy(t, origin.url)

  await t.test('Upgrade, with bytes behind both heads', async (t) => {
    const wire = await connect()
    const completed = logged('request completed')
    wire.send(UPGRADE('/a', 'X: y\r\n') + 'early')
    const peer = await origin.next()
    t.strictSame(lines(await peer.head()).filter((line) => !line.startsWith('host')), ['GET /a HTTP/1.1', 'connection: upgrade', 'upgrade: x', 'x: y'])
    t.equal(peer.received, '', 'nothing before the server has switched')
    peer.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: X\r\nX-Y: z\r\nContent-Length: 5\r\n\r\nfirst')
    t.match(await wire.head(), { statusCode: 101, fields: { connection: 'upgrade', upgrade: 'X', 'x-y': 'z' } })
    await wire.content(5).then((content) => t.equal(content, 'first'))
    await peer.until('early')
    wire.send('\0\xff')
    await peer.until('\0\xff')
    wire.socket.end()
    await peer.ended
    peer.send('last words').socket.end()
    t.equal(await wire.body(), 'last words', 'each side ends by itself')
    t.match(await completed, { res: { statusCode: 101 } })
  })

  await t.test('CONNECT', async (t) => {
    const wire = await connect()
    wire.send(CONNECT('db.test:5432', 'Proxy-Authorization: x\r\n'))
    const peer = await origin.next()
    t.strictSame(lines(await peer.head()), ['CONNECT db.test:5432 HTTP/1.1', 'host: db.test:5432'])
    peer.send('HTTP/1.1 200 OK\r\n\r\nhello')
    t.match(await wire.head('CONNECT'), { statusCode: 200 })
    t.equal(await wire.content(5), 'hello')
    wire.send('there')
    await peer.until('there')
    peer.socket.end()
    await wire.ended
    wire.socket.end()
    await peer.ended
  })

  await t.test('refused', async (t) => {
    for (const [request, method] of [[UPGRADE('/a'), 'GET'], [CONNECT('a:1'), 'CONNECT']]) {
      const wire = await connect()
      const next = origin.peers.length
      wire.send(request)
      const peer = origin.peers.length > next ? origin.peers[next] : await Promise.race([origin.next()])
      await peer.head()
      peer.send('HTTP/1.1 407 Who\r\nContent-Length: 3\r\n\r\nwho')
      t.match(await wire.response(method), { statusCode: 407, body: 'who' })
      peer.socket.destroy()
      if (method === 'GET') t.match(await wire.request(GET('/next')), { body: 'next' })
    }
  })

  await t.test('Upgrade behind a body', async (t) => {
    for (const [head, body, sent] of [
      ['Content-Length: 5', 'hello', 'hello'],
      ['Transfer-Encoding: chunked', '5\r\nhello\r\n0\r\nx: y\r\n\r\n', 'o\r\n0\r\nx: y\r\n\r\n']
    ]) {
      const begin = async (): Promise<[Wire, Peer]> => {
        const wire = await connect()
        const next = origin.next()
        wire.send(UPGRADE('/a', `${head}\r\n`, 'POST') + body.slice(0, 7))
        const peer = await next
        t.strictSame(lines(await peer.head()).filter((line) => !line.startsWith('host')), ['POST /a HTTP/1.1', 'connection: upgrade', head.toLowerCase(), 'upgrade: x'].sort((a, b) => a.startsWith('POST') ? -1 : a < b ? -1 : 1))
        return [wire, peer]
      }
      const [wire, peer] = await begin()
      wire.send(body.slice(7) + 'early')
      await peer.until(sent)
      t.equal(peer.received, '')
      peer.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfirst')
      t.match(await wire.head(), { statusCode: 101 })
      t.equal(await wire.content(5), 'first')
      await peer.until('early')
      wire.send('more').socket.end()
      await peer.until('more')
      await peer.ended
      peer.socket.end('last')
      t.equal(await wire.body(), 'last')

      const [other, refusing] = await begin()
      other.send(body.slice(7))
      await refusing.until(sent)
      refusing.send(ok('no'))
      t.match(await other.response(), { statusCode: 200, body: 'no' })
      t.match(await other.request(GET('/next')), { body: 'next' })
      refusing.socket.destroy()

      const [switched, switching] = await begin()
      switching.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
      t.match(await switched.head(), { statusCode: 101 }, 'before the body is complete')
      switched.send(body.slice(7))
      await switching.until(sent)
      switched.send('tunnel')
      t.equal(await switching.until('tunnel'), 'tunnel')
      switched.socket.end()
      await switching.ended
      switching.socket.end()

      const [early, refusingEarly] = await begin()
      refusingEarly.send('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno')
      t.match(await early.response(), { statusCode: 403, body: 'no' }, 'refused before the body is complete')
      early.socket.destroy()
      refusingEarly.socket.destroy()
      await refusingEarly.ended
    }
  })

  await t.test('a body that backpressure holds is whole before the tunnel', async (t) => {
    const wire = await connect()
    const content = 'x'.repeat(8 * MB)
    const next = origin.next()
    wire.send(UPGRADE('/a', `Content-Length: ${content.length}\r\n`, 'POST'))
    const peer = await next
    await peer.head()
    peer.socket.pause()
    wire.send(content + 'early')
    await untilStuck(() => wire.socket.writableLength)
    peer.socket.resume()
    t.ok(await peer.atLeast(content.length) === content)
    peer.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
    await wire.head()
    await peer.until('early')
    wire.socket.destroy()
    await peer.ended
    peer.socket.destroy()
  })

  await t.test('a protocol that was not offered, or none', async (t) => {
    for (const fields of ['Upgrade: y\r\n', '', 'Upgrade: x, y\r\n']) {
      const wire = await connect()
      const next = origin.next()
      wire.send(UPGRADE('/a'))
      const peer = await next
      await peer.head()
      peer.send(`HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n${fields}\r\n`)
      const response = await wire.response()
      t.match(response, { statusCode: 502, fields: { upgrade: undefined } })
      t.match(JSON.parse(response.body), { code: 'FST_ERR_DUPLEX_UPSTREAM' })
      t.match(await wire.request(GET('/next')), { body: 'next' })
      await peer.ended
    }
    const wire = await connect()
    const next = origin.next()
    wire.send(GET('/'))
    const peer = await next
    await peer.head()
    peer.send('HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n')
    t.match(JSON.parse((await wire.response()).body), { code: 'FST_ERR_DUPLEX_UPSTREAM' })
  })

  await t.test('a reset of one side is a reset of the other', async (t) => {
    for (const side of ['client', 'server']) {
      const wire = await connect()
      const next = origin.next()
      wire.send(UPGRADE('/a'))
      const peer = await next
      await peer.head()
      peer.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
      await wire.head()
      let code: string | undefined
      wire.socket.on('error', (error: NodeJS.ErrnoException) => { code = error.code })
      if (side === 'client') {
        wire.socket.resetAndDestroy()
        t.ok(RESETS.includes(await peer.lost))
      } else {
        peer.socket.resetAndDestroy()
        await wire.ended
        t.ok(RESETS.includes(code ?? 'end'))
      }
    }
  })
  while (agent.connections > 0) await immediate()
})

t.test('a tunnel where Node reads and writes', async (t) => {
  const origin = await upstream(t)
  const { connect } = await serveProxy(t, origin.url, { start: starters.fallback })
  for (const body of ['', 'hello']) {
    const wire = await connect()
    const next = origin.next()
    wire.send(UPGRADE('/a', body === '' ? '' : 'Content-Length: 5\r\n', 'POST') + body)
    const peer = await next
    await peer.head()
    await peer.until(body)
    peer.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
    const response = await wire.response()
    t.equal(response.statusCode, 501)
    t.match(JSON.parse(response.body), { code: 'FST_ERR_DUPLEX_TUNNEL' })
    await peer.ended
  }
})

t.test('WebSocket, beside the routes of @fastify/websocket', async (t) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'chat' })
  t.teardown(() => server.close())
  server.on('connection', (socket, request) => {
    socket.send(`hello ${request.url}`) // comes right behind the 101
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  for (const beside of [true, false]) {
    const served = await serve(t, 'tcp', async (app: FastifyInstance) => {
      if (beside) {
        await app.register(websocket)
        app.get('/chat', { websocket: true }, (socket) => { socket.send('chat') })
        app.get('/svc/:own', { websocket: true }, (socket) => { socket.send('own') })
        app.get('/svc/wide/*', { websocket: true }, (socket) => { socket.send('wide') })
        app.route({ method: 'GET', url: '/both', handler: async () => 'http', wsHandler: (socket) => { socket.send('both') } })
        app.get('/plain', { duplex: true }, async () => 'plain')
      }
      await app.register(duplexProxy, { prefix: '/svc', upstream: url })
      app.get('/:any/x', { duplex: true }, proxy({ upstream: url }))
    })
    const open = (path: string): WebSocket => {
      const socket = new WebSocket(`ws://127.0.0.1:${served.port}${path}`, 'chat')
      t.teardown(() => socket.terminate())
      return socket
    }
    const first = async (path: string): Promise<string> => {
      const socket = open(path)
      const [message] = await once(socket, 'message')
      socket.terminate()
      await once(socket, 'close')
      return String(message)
    }
    if (beside) {
      t.equal(await first('/chat'), 'chat')
      t.equal(await first('/chat?a'), 'chat')
      t.equal(await first('/svc/one'), 'own')
      t.equal(await first('/svc/wide/x/y'), 'wide')
      t.equal(await first('/both'), 'both')
      t.match(await (await served.connect()).request(GET('/plain')), { body: 'plain' })
      for (const path of ['/nowhere', '/svcx']) {
        const [error] = await once(open(path), 'error')
        t.match(error.message, /Unexpected server response: 4\d\d/, path)
      }
    }
    t.equal(await first('/svc/a/b?c'), 'hello /a/b?c')
    t.equal(await first('/s%76c/a/b'), 'hello /a/b')
    t.equal(await first('/y/x'), 'hello /y/x')
    const socket = open('/svc/a/b')
    await once(socket, 'message')
    t.equal(socket.protocol, 'chat')
    for (const size of [1, 125, 126, 70_000, MB]) {
      const data = Buffer.alloc(size, size)
      socket.send(data)
      t.ok(data.equals((await once(socket, 'message'))[0]))
    }
    const completed = served.logged('request completed')
    socket.close(4000, 'bye')
    t.match(await once(socket, 'close'), [4000])
    t.match(await completed, { res: { statusCode: 101 } })
    await served.app.close()
  }
  for (const client of server.clients) client.terminate()
})

t.test('an early answer does not stop the upload', async (t) => {
  const origin = await upstream(t)
  const { connect } = await serveProxy(t, origin.url)
  const wire = await connect()
  wire.send(OPEN('/'))
  const peer = await origin.next()
  await peer.head()
  peer.send(ok('early'))
  t.match(await wire.response(), { body: 'early' })
  const content = 'y'.repeat(MB)
  for (let i = 0; i < 8; i++) {
    wire.send(chunk(content))
    while (!peer.received.includes('y'.repeat(100))) await peer.until('y')
    peer.received = peer.received.slice(-1)
  }
  wire.send('0\r\nx: y\r\n\r\n')
  await peer.until('0\r\nx: y\r\n\r\n')
  t.match(await wire.request(GET('/next')), { body: 'next' })
  wire.send(GET('/again'))
  await peer.head()
  peer.send(ok('again'))
  t.match(await wire.response(), { body: 'again' })
  t.equal(origin.peers.length, 1, 'on the same connection')
})

t.test('a server that answers early, and leaves', async (t) => {
  for (const way of ['end', 'destroy', 'destroySoon'] as const) {
    const origin = await upstream(t)
    const { connect, agent } = await serveProxy(t, origin.url, { duplex: { drainLimit: 0 } })
    const answer = 'z'.repeat(4 * MB)
    const wire = await connect()
    wire.send(OPEN('/'))
    const peer = await origin.next()
    await peer.head()
    wire.socket.pause()
    wire.send(chunk('y'.repeat(64 * 1024)))
    await peer.until('\r\n')
    peer.socket.write(`HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: ${answer.length}\r\n\r\n`)
    await new Promise((resolve) => peer.socket.write(answer.slice(0, MB), resolve))
    if (way === 'destroy') {
      peer.socket.destroy()
    } else {
      peer.socket.write(answer.slice(MB))
      peer.socket[way]()
    }
    let sending = true
    const send = (): void => {
      if (sending && wire.socket.writable) wire.socket.write(chunk('y'.repeat(64 * 1024)), 'latin1', () => setImmediate(send))
    }
    send()
    wire.socket.resume()
    if (way === 'destroy') {
      await t.rejects(wire.response(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'cut off, even before the head if a reset overtakes it')
    } else {
      try {
        const { statusCode, body } = await wire.response()
        t.strictSame([statusCode, body.length], [403, answer.length], `${way}: the answer arrives whole`)
      } catch (error) {
        // The reset of a server that does not read on may overtake its answer.
        t.match([way, error], ['destroySoon', { code: 'FST_ERR_DUPLEX_TRUNCATED' }])
      }
    }
    sending = false
    wire.socket.destroy()
    peer.socket.destroy()
    while (agent.connections > 0) await immediate()
  }
})

for (const [kind, start] of Object.entries({ tcp: starters.tcp, tls: starters.tls, fallback: starters.fallback })) {
  t.test(`bulk both ways, with a slow side in each place, ${kind}`, async (t) => {
    const SIZE = 96 * MB // the buffers of the kernel may hold half of it
    const origin = await serve(t, 'tcp', (app) => {
      app.post('/echo', { duplex: true }, async (_request, reply) => { await pipeline(reply.duplex, reply.duplex) })
    })
    const { port, agent } = await serveProxy(t, `http://127.0.0.1:${origin.port}`, { start, duplex: { highWaterMark: 65536 } })
    const own = new Agent({ tls: { rejectUnauthorized: false } })
    t.teardown(() => own.close())
    const call = open(`${kind === 'tls' ? 'https' : 'http'}://127.0.0.1:${port}/echo`, { method: 'POST', agent: own })
    const chunks = Array.from({ length: 16 }, (_, i) => Buffer.alloc(65536 + i, i))
    let sent = 0
    const sentHash = createHash('sha256')
    const gotHash = createHash('sha256')
    const writing = (async () => {
      for (let i = 0; sent < SIZE; i++) {
        const content = chunks[i % chunks.length]
        sent += content.length
        sentHash.update(content)
        if (!call.write(content)) await once(call, 'drain')
      }
      call.end()
    })()
    await call.response
    // Nobody reads: what is on its way fills the buffers, and no more.
    await untilStuck(() => sent)
    t.ok(sent < SIZE, `held back after ${sent} bytes`)
    let got = 0
    for await (const content of call) {
      got += content.length
      gotHash.update(content)
    }
    await writing
    t.equal(got, sent)
    t.equal(gotHash.digest('hex'), sentHash.digest('hex'))
    t.ok(agent.connections <= 1)
  })
}
