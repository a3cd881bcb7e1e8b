// When one side fails, the other is told: never a short body that looks whole, and nothing is left behind.

import { once } from 'node:events'
import net from 'node:net'
import { setImmediate as immediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { LEFT, CUT_OFF, GET, OPEN, UPGRADE, type Wire, chunk, serve } from '../support/wire.ts'
import { startersOf } from '../support/http1.ts'
import { LIMITS, requests } from '../conformance/requests.ts'
import { MAX_HEAD_SIZE } from '../conformance/request-heads.ts'
import { responses } from '../conformance/responses.ts'
import { overTcp } from '../conformance/talk.ts'
import { Agent } from '../../lib/client/index.ts'
import { RequestHeadReader } from '../../lib/transfer/head-reader.ts'
import { type Peer, type ProxySetup, RESETS, ok, serveProxy, upstream } from './support.ts'

const starters = startersOf(t)

async function outcome (wire: Wire, method = 'GET'): Promise<string> {
  try {
    const { statusCode, body } = await wire.response(method)
    return `${statusCode} ${statusCode < 500 || method === 'HEAD' ? body : JSON.parse(body).code}`
  } catch (error) {
    return (error as { code: string }).code
  }
}

/** A response of HTTP/1.0 ends with the connection. Only a reset tells that it is not whole. */
async function lossOf ({ socket }: Wire): Promise<string> {
  // An orderly end is not followed by 'close', as long as our side is open.
  if (!socket.closed && !socket.readableEnded) await new Promise((resolve) => socket.once('close', resolve).once('end', resolve))
  // Below Node 24, a client takes some resets for an end.
  return (socket.errored as NodeJS.ErrnoException | null)?.code === 'ECONNRESET' || Number(process.versions.node.split('.')[0]) < 24 ? CUT_OFF.code : 'looks whole'
}

const RESPONSES: [name: string, method: string, bytes: string, expected: string][] = [
  ['length', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789', '200 0123456789'],
  ['chunked', 'GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n01234\r\n5\r\n56789\r\n0\r\nx: y\r\n\r\n', '200 0123456789'],
  ['interim', 'GET', 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', '200 ok'],
  ['HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n', '200 '],
  ['204', 'GET', 'HTTP/1.1 204 No Content\r\n\r\n', '204 ']
]

for (const way of ['end', 'reset'] as const) {
  for (const version of ['1.1', '1.0']) {
    t.test(`the server dies at every byte of its response: ${way}, to HTTP/${version}`, async (t) => {
      let answer = ''
      const origin = await upstream(t, async (peer) => {
        await peer.head()
        await new Promise((resolve) => answer === '' ? resolve(null) : peer.socket.write(answer, 'latin1', resolve))
        if (way === 'end') peer.socket.end()
        else peer.socket.resetAndDestroy()
      })
      const { connect, agent } = await serveProxy(t, origin.url)
      for (const [name, method, bytes, expected] of RESPONSES) {
        const wrong: string[] = []
        for (let size = 0; size <= bytes.length; size++) {
          answer = bytes.slice(0, size)
          const wire = await connect()
          wire.send(`${method} / HTTP/${version}\r\nHost: a\r\n\r\n`)
          let got = await outcome(wire, method)
          if (got.startsWith('103')) got = await outcome(wire, method)
          const isWhole = size === bytes.length
          // A reset may overtake what was sent before it.
          if (version === '1.0' && !isWhole && got.startsWith('200')) got = await lossOf(wire)
          const allowed = isWhole ? (way === 'end' ? [expected] : [expected, CUT_OFF.code, '502 FST_ERR_DUPLEX_SERVER_GONE']) : [CUT_OFF.code, '502 FST_ERR_DUPLEX_SERVER_GONE', '502 FST_ERR_DUPLEX_UPSTREAM']
          if (method === 'HEAD') allowed.push('502 ')
          if (!allowed.includes(got)) wrong.push(`${size}: ${got}`)
          if (got.startsWith('502') || (isWhole && got === expected && version === '1.1')) {
            const next = version === '1.1' ? await wire.request(GET('/next')) : null
            if (next !== null && next.body !== 'next') wrong.push(`${size}: next is ${next.body}`)
          } else {
            await wire.ended
          }
          wire.socket.destroy()
        }
        t.strictSame(wrong, [], name)
      }
      t.equal(agent.connections, 0)
    })
  }
}

t.test('a cut-off of a close-delimited response', async (t) => {
  const origin = await upstream(t, async (peer) => {
    await peer.head()
    peer.send('HTTP/1.1 200 OK\r\n\r\nhalf')
  })
  const { connect } = await serveProxy(t, origin.url)
  for (const version of ['1.1', '1.0']) {
    const wire = await connect()
    const next = origin.next()
    wire.send(`GET / HTTP/${version}\r\nHost: a\r\n\r\n`)
    await wire.head()
    t.equal(await wire.content(4), 'half')
    let code: string | undefined
    wire.socket.on('error', (error: NodeJS.ErrnoException) => { code = error.code })
    ;(await next).socket.resetAndDestroy()
    if (version === '1.1') {
      await t.rejects(wire.body(), CUT_OFF)
    } else {
      await wire.ended
      t.ok(RESETS.includes(code ?? 'end'), 'HTTP/1.0 has no other sign')
    }
  }
})

t.test('a malformed response is not passed on', async (t) => {
  let answer = ''
  const origin = await upstream(t, async (peer) => {
    await peer.head()
    peer.send(answer).socket.end()
  })
  const { connect, agent, log } = await serveProxy(t, origin.url, { options: { ...LIMITS, maxHeadSize: MAX_HEAD_SIZE } })
  for (const [rule, name, method, bytes, expected] of responses) {
    if (!/^(GET|HEAD)$/.test(method)) continue
    answer = bytes
    const wire = await connect()
    wire.send(`${method} / HTTP/1.1\r\nHost: a\r\n\r\n`)
    let got
    do got = await outcome(wire, method); while (/^1/.test(got))
    const title = `${rule} ${name}`
    if (expected.accepted && expected.statuses.at(-1) !== 101) t.equal(got, `${expected.statuses.at(-1)} ${expected.statuses.at(-1)! >= 500 ? undefined : expected.content}`, title)
    else t.match(got, /^(502 FST_ERR_DUPLEX_(UPSTREAM|SERVER_GONE)|FST_ERR_DUPLEX_TRUNCATED)$/, title)
    wire.socket.destroy()
  }
  t.equal(agent.connections, 0)
  t.strictSame(log.filter(({ level }) => level > 50), [])
})

t.test('a head and a malformed body in one packet, then silence', async (t) => {
  const origin = await upstream(t, async (peer) => {
    await peer.head()
    peer.send('HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n')
  })
  const { connect } = await serveProxy(t, origin.url)
  const wire = await connect()
  const response = await wire.request(GET('/'))
  t.match(response, { statusCode: 502, fields: { 'content-encoding': undefined } })
  t.match(JSON.parse(response.body), { code: 'FST_ERR_DUPLEX_UPSTREAM' })
  t.match(await wire.request(GET('/next')), { body: 'next' })
})

for (const [kind, start] of Object.entries({ tcp: starters.tcp, tls: starters.tls, fallback: starters.fallback })) {
  t.test(`the client dies at every byte of its request, ${kind}`, async (t) => {
    const origin = await upstream(t)
    const { connect, agent } = await serveProxy(t, origin.url, { start })
    for (const request of [
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789',
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\nx: y\r\n\r\n'
    ]) {
      const head = request.indexOf('\r\n\r\n') + 4
      const wrong: string[] = []
      for (let size = head; size < request.length; size++) {
        for (const way of ['end', 'destroy', ...kind === 'tls' ? [] : ['resetAndDestroy'] as const] as const) {
          const wire = await connect()
          const next = origin.next()
          wire.send(request.slice(0, size))
          const peer = await next
          await peer.head()
          wire.socket[way]()
          await peer.ended
          peer.socket.destroy()
          // With a length or without the last chunk: the server can tell.
          const body = peer.received
          const isWhole = request.includes('Length') ? body.length >= 10 : body.endsWith('\r\n\r\n')
          if (isWhole) wrong.push(`${size} ${way}: ${JSON.stringify(body)}`)
          wire.socket.destroy()
        }
      }
      t.strictSame(wrong, [])
    }
    t.equal(agent.connections, 0)
  })
}

t.test('a malformed request is answered, and cut off upstream', async (t) => {
  const origin = await upstream(t)
  const { connect } = await serveProxy(t, origin.url)
  const wire = await connect()
  wire.send(OPEN('/') + chunk('a'))
  const peer = await origin.next()
  await peer.until('1\r\na\r\n')
  wire.send('nonsense\r\n')
  t.match(await wire.response(), { statusCode: 400 })
  t.ok(RESETS.includes(await peer.lost))
  t.equal(peer.received, '')
  const begun = await connect()
  begun.send(OPEN('/'))
  const other = await origin.next()
  await other.head()
  other.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
  await begun.head()
  begun.send('nonsense\r\n')
  await t.rejects(begun.body(), CUT_OFF)
  await other.ended
})

t.test('errors of the server, through error handlers and hooks', async (t) => {
  const seen: unknown[] = []
  const setup = (app: import('fastify').FastifyInstance): void => {
    app.addHook('onError', async (_request, _reply, error) => { seen.push((error as { code?: string }).code) })
    app.setErrorHandler((error: { code?: string, statusCode?: number }, _request, reply) => reply.code(error.statusCode!).send({ mine: error.code }))
  }
  const silent = await upstream(t)
  const unused = net.createServer().listen(0, '127.0.0.1')
  await once(unused, 'listening')
  const { port } = unused.address() as net.AddressInfo
  await new Promise((resolve) => unused.close(resolve))
  for (const [target, options, status, code] of [
    [`http://127.0.0.1:${port}`, {}, 502, 'FST_ERR_DUPLEX_CONNECT'],
    [`https://127.0.0.1:${new URL(silent.url).port}`, {}, 504, 'FST_ERR_DUPLEX_SERVER_TIMEOUT'],
    [silent.url, { headersTimeout: 10 }, 504, 'FST_ERR_DUPLEX_SERVER_TIMEOUT']
  ] as const) {
    const agent = new Agent({ connectTimeout: 200 })
    const { connect, logged } = await serveProxy(t, target, { options: { ...options, agent }, setup })
    for (const request of [GET('/'), 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello']) {
      const wire = await connect()
      const completed = logged('request completed')
      const response = await wire.request(request)
      t.match([response.statusCode, JSON.parse(response.body)], [status, { mine: code }])
      t.match(await completed, { res: { statusCode: status } })
      t.equal(seen.pop(), code)
      t.match(await wire.request(GET('/next')), { body: 'next' })
    }
    t.equal(agent.connections, 0)
  }
  const origin = await upstream(t)
  const { connect, logged } = await serveProxy(t, origin.url, { setup })
  const wire = await connect()
  const next = origin.next()
  const errored = logged('request errored')
  wire.send(GET('/'))
  const peer = await next
  await peer.head()
  peer.send('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe')
  await wire.head()
  peer.socket.destroy()
  await t.rejects(wire.body(), CUT_OFF)
  t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_UPSTREAM' }, res: { statusCode: 200 } })
  t.equal(seen.pop(), 'FST_ERR_DUPLEX_UPSTREAM')
})

t.test('a request is sent again only if nothing of it was read', async (t) => {
  const origin = await upstream(t)
  const { connect } = await serveProxy(t, origin.url)
  const wire = await connect()
  const warmUp = async (): Promise<Peer> => {
    const next = origin.next()
    wire.send(GET('/warm'))
    const peer = await next
    await peer.head()
    peer.send(ok('warm'))
    t.match(await wire.response(), { body: 'warm' })
    return peer
  }
  const idle = await warmUp()
  wire.send(GET('/again'))
  await idle.head()
  const next = origin.next()
  idle.socket.destroy()
  const peer = await next
  t.match(await peer.head(), /^GET \/again /)
  peer.send(ok('again'))
  t.match(await wire.response(), { body: 'again' })

  wire.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx')
  await peer.until('x')
  peer.socket.destroy()
  t.match(await wire.response(), { statusCode: 502 }, 'not with a body')

  const other = await warmUp()
  wire.send(GET('/half'))
  await other.head()
  other.send('HTTP/1.1 2')
  const { length } = origin.peers
  other.socket.end()
  t.match(await wire.response(), { statusCode: 502 }, 'not when the response has begun')
  t.equal(origin.peers.length, length)
})

/** Behind each request, for a route of the proxy's own app. */
const NEXT = 'GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

t.test('smuggling: the server behind the proxy sees one request or none, framed by our writer', async (t) => {
  const seen: { method: string, target: string, fields: Record<string, string>, content: string }[] = []
  let strays = 0
  const origin = await serve(t, 'tcp', (app) => {
    app.all('/*', { duplex: true }, async (request, reply) => {
      let content = ''
      const entry = { method: request.method, target: request.url, fields: request.headers as Record<string, string>, content: '' }
      for await (const part of reply.duplex) content += part.toString('latin1')
      entry.content = content
      seen.push(entry)
      reply.duplex.setTrailers({ ...reply.duplex.trailers })
      reply.duplex.end(content, 'latin1')
    })
    app.setNotFoundHandler(async () => { strays++ })
    app.server.on('clientError', (error: NodeJS.ErrnoException) => { if (error.code !== 'ECONNRESET') strays++ }) // a request that is cut off is no request
  })
  const { app } = await serveProxy(t, `http://127.0.0.1:${origin.port}`, { duplex: LIMITS, serve: { fastify: { forceCloseConnections: true } } })
  const talk = overTcp(app)
  for (const [rule, name, bytes, expected] of requests) {
    for (const segments of [[bytes + NEXT], [bytes.slice(0, -3), bytes.slice(-3) + NEXT], [bytes, NEXT]]) {
      seen.length = 0
      const title = `${rule} ${name}`
      const answers = await talk(segments.map((part) => Buffer.from(part, 'latin1')))
      t.equal(strays, 0, title)
      if (!expected.accepted) {
        t.strictSame(seen, [], `${title}: none`)
        t.strictSame(answers.map(({ status }) => status), [expected.status], title)
        continue
      }
      t.equal(seen.length, 1, `${title}: one request`)
      const [{ fields, content }] = seen
      t.equal(content, expected.content, title)
      t.strictSame([fields['transfer-encoding'], Number(fields['content-length'] ?? 0)], expected.framing === 'chunked' ? ['chunked', 0] : [undefined, content.length], `${title}: ${expected.framing}`)
      // The response of the server has no length: to HTTP/1.0 it ends with the connection.
      const isKept = expected.persistent && !bytes.includes('HTTP/1.0\r\n')
      t.strictSame(answers.map((answer) => answer.content), isKept ? [content, 'next'] : [content], `${title}: the next request is the next one`)
    }
  }
})

t.test('what is written upstream is one request, as our own reader reads it', async (t) => {
  const heads: string[] = []
  const origin = await upstream(t, async (peer) => {
    heads.push(await peer.head())
    peer.send(ok('ok')).socket.end()
  })
  const { connect } = await serveProxy(t, origin.url)
  for (const fields of ['Connection: transfer-encoding, content-length', 'Connection: host', 'X: \ttab', 'Transfer-Encoding\x20: x', 'Content-Length: 0', 'Trailer: content-length']) {
    const wire = await connect()
    wire.send(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n`)
    const response = await wire.response()
    if (response.statusCode === 400) continue
    const reader = new RequestHeadReader(65536)
    reader.read(Buffer.from(heads.at(-1)!, 'latin1'))
    t.equal(reader.error, null)
    t.match(reader.head, { method: 'GET', target: '/' })
  }
})

type Phase = [name: string, leave: (wire: Wire, next: () => Promise<Peer>) => Promise<void>]

const PHASES: Phase[] = [
  ['head sent', async (wire, next) => {
    wire.send(GET('/'))
    await next()
  }],
  ['waiting for the answer', async (wire, next) => {
    wire.send(GET('/'))
    await (await next()).head()
  }],
  ['body half sent', async (wire, next) => {
    wire.send(OPEN('/') + chunk('a'))
    await (await next()).until('a\r\n')
  }],
  ['body sent', async (wire, next) => {
    wire.send(OPEN('/') + '0\r\n\r\n')
    await (await next()).until('0\r\n\r\n')
  }],
  ['expecting', async (wire, next) => {
    wire.send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n')
    await (await next()).head()
  }],
  ['head read', async (wire, next) => {
    wire.send(OPEN('/'))
    ;(await next()).send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
    await wire.head()
  }],
  ['response half read', async (wire, next) => {
    wire.send(GET('/'))
    ;(await next()).send('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe')
    await wire.head()
    await wire.content(2)
  }],
  ['response flowing', async (wire, next) => {
    wire.send(GET('/'))
    const { socket } = await next()
    socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
    const write = (): void => { if (socket.writable) socket.write(chunk('x'.repeat(65536)), () => setImmediate(write)) }
    write()
    await wire.head()
    await wire.content(100_000)
  }],
  ['early answer, upload goes on', async (wire, next) => {
    wire.send(OPEN('/'))
    ;(await next()).send(ok('early'))
    await wire.response()
  }],
  ['waiting for the switch', async (wire, next) => {
    wire.send(UPGRADE('/'))
    await (await next()).head()
  }],
  ['waiting for the switch behind a body', async (wire, next) => {
    wire.send(UPGRADE('/', 'Content-Length: 1\r\n', 'POST') + 'x')
    await (await next()).until('x')
  }],
  ['tunnel', async (wire, next) => {
    wire.send(UPGRADE('/'))
    ;(await next()).send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nx')
    await wire.head()
    await wire.content()
  }]
]

/** How a client leaves. One that only ends its side of a tunnel has not left. */
const WAYS = ['destroy', 'resetAndDestroy'] as const

/** How many clients leave: `LEAVES=10000` for more. */
const LEAVES = Number(process.env.LEAVES ?? 300)

const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length

async function leaveAtEveryPhase (t: Test, leaves: number, ways: readonly (typeof WAYS[number])[], setup: ProxySetup = {}): Promise<void> {
  const origin = await upstream(t, ({ socket }) => { socket.on('end', () => socket.end()) })
  const { connect, agent, logged } = await serveProxy(t, origin.url, setup)
  const runs = Math.ceil(leaves / PHASES.length / ways.length)
  let longest = 0
  const before = timers()
  for (const [name, leave] of PHASES) {
    for (let run = 0; run < runs; run++) {
      for (const way of ways) {
        const wire = await connect()
        const ended = Promise.race([logged('request completed'), logged('request errored'), logged(LEFT)])
        await leave(wire, origin.next)
        const start = performance.now()
        wire.socket[way]()
        await origin.peers.at(-1)!.closed
        while (agent.connections > 0) await immediate()
        longest = Math.max(longest, performance.now() - start)
        await ended
      }
    }
    t.equal(origin.open(), 0, `${name}: no connection is left, and the exchange has ended`)
  }
  while (timers() > before) await immediate() // of a connection that is being closed: there is no event for that
  t.comment(`${runs * PHASES.length * ways.length} clients have left; it took ${Math.ceil(longest)} ms at most`)
}

t.test('clients that leave at every phase', { timeout: 0 }, (t) => leaveAtEveryPhase(t, LEAVES, WAYS))
t.test('clients that leave at every phase, TLS', (t) => leaveAtEveryPhase(t, 36, ['destroy'], { start: starters.tls }))

t.test('clients that leave while the proxy connects', async (t) => {
  const origin = await upstream(t)
  const { connect, agent, logged } = await serveProxy(t, origin.url.replace('http:', 'https:'))
  for (const way of WAYS) {
    const wire = await connect()
    const left = logged(LEFT)
    wire.send(GET('/'))
    const peer = await origin.next()
    t.equal(agent.connections, 1, 'TLS has begun, and goes no further')
    wire.socket[way]()
    await peer.ended
    await left
    t.equal(agent.connections, 0)
  }
})

t.test('clients that leave during the hooks', async (t) => {
  const origin = await upstream(t)
  let reached = (): void => {}
  let go = (): void => {}
  const { connect, agent, logged } = await serveProxy(t, origin.url, {
    setup (app) {
      app.addHook('preHandler', async (request, reply) => {
        if (request.url === '/used') reply.duplex.on('error', () => {})
        reached()
        await new Promise<void>((resolve) => { go = resolve })
      })
    }
  })
  for (const path of ['/', '/used']) {
    const inHook = new Promise<void>((resolve) => { reached = resolve })
    const wire = await connect()
    wire.send(OPEN(path))
    await inHook
    const left = logged(LEFT)
    wire.socket.resetAndDestroy()
    await left
    go()
    await new Promise((resolve) => setImmediate(resolve))
    t.equal(origin.peers.length, 0, 'the server is not asked')
    t.equal(agent.connections, 0)
  }
})

t.test('a client that ends its side during the hooks', async (t) => {
  const origin = await upstream(t)
  const { connect, logged } = await serveProxy(t, origin.url, {
    setup (app) {
      app.addHook('preHandler', async ({ signal }) => { if (!signal.aborted) await once(signal, 'abort') })
    }
  })
  const wire = await connect()
  const left = logged(LEFT)
  wire.send(GET('/')).socket.end()
  await left
  for (const peer of origin.peers) await peer.ended
  t.equal(wire.pending, 0)
})

t.test('when the app closes, exchanges may finish', async (t) => {
  const origin = await upstream(t)
  const { app, connect } = await serveProxy(t, origin.url, { serve: { plugin: { closeGrace: 60_000 }, fastify: { forceCloseConnections: false } } })
  const wire = await connect()
  wire.send(GET('/'))
  const peer = await origin.next()
  await peer.head()
  const closing = app.close()
  await new Promise((resolve) => setImmediate(resolve))
  peer.send(ok('last'))
  t.match(await wire.response(), { body: 'last', fields: { connection: 'close' } })
  await closing
})

t.test('an agent that is closed', async (t) => {
  const origin = await upstream(t)
  const { connect, agent } = await serveProxy(t, origin.url)
  agent.close()
  const wire = await connect()
  t.match(JSON.parse((await wire.request(GET('/'))).body), { statusCode: 502, code: 'FST_ERR_DUPLEX_UPSTREAM' })
})
