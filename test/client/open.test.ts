// fastify-duplex/client over real sockets: what a call can do, with servers of this package and with servers that the test plays.

import dns from 'node:dns'
import { once } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import tls from 'node:tls'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { jsonl, sse } from '../../lib/items/index.ts'
import type { Agent as PublicAgent, ClientCall, OpenOptions } from '../../types/client.d.ts'
import { TLS, TRANSPORTS, type Transport, hash, serve, untilStuck } from '../support/wire.ts'
import { Agent, BODY, OK, closed, failureOf, head, open, outcomeOf, play, until, whole } from './support.ts'

async function echo (_request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

function routes (app: FastifyInstance): void {
  app.post('/echo', { duplex: true }, echo)
  app.post('/upper', { duplex: true }, async function * (request, reply) {
    for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
    reply.duplex.setTrailers({ 'x-sum': reply.duplex.trailers['x-sum'] })
  })
  app.all('/request', { duplex: true }, async (request, reply) => {
    const body = await text(reply.duplex)
    return { method: request.method, url: request.url, headers: request.headers, framing: reply.duplex.framing.request, body }
  })
  app.get('/hints', { duplex: true }, async function * (request, reply) {
    reply.duplex.writeInformation(103, { link: '</a>' })
    yield 'hints'
  })
  app.get('/status/:status', { duplex: true }, async (request, reply) => {
    reply.code(Number((request.params as { status: string }).status)).duplex.end()
  })
  app.post('/rows', { duplex: { receive: jsonl({}), send: [jsonl({}), sse({})] } }, async function * (request, reply) {
    for await (const row of reply.duplex.items) yield { got: row }
  })
  app.get('/tunnel', { duplex: true }, async (request, reply) => {
    await pipeline(reply.code(101).header('upgrade', 'x').duplex, reply.duplex)
  })
  app.addHttpMethod('CONNECT')
  app.route({ method: 'CONNECT', url: '*', duplex: true, handler: echo })
}

interface Subject { app: FastifyInstance, call: (path: string, options?: OpenOptions<undefined, undefined>) => ClientCall, url: string, agent: PublicAgent }

async function start (t: Test, transport: Transport): Promise<Subject> {
  const { app, port } = await serve(t, transport, routes)
  const url = transport === 'unix' ? `unix:${String(app.server.address())}:` : `http${transport === 'tls' ? 's' : ''}://127.0.0.1:${port}`
  const agent = new Agent({ tls: { ca: TLS.cert } })
  t.teardown(() => agent.close())
  return { app, url, agent, call: (path, options) => open(url + path, { agent, ...options }) }
}

async function say (call: ClientCall, words: string): Promise<string> {
  call.write(words)
  const [chunk] = await once(call, 'data')
  return String(chunk)
}

for (const transport of TRANSPORTS) {
  t.test(`over ${transport}`, async (t) => {
    const { call, agent } = await start(t, transport)

    await t.test('a conversation, with trailers both ways, and another one on the same connection', async (t) => {
      for (const round of ['one', 'two']) {
        const talk = call('/upper', { method: 'POST' })
        t.equal(await say(talk, round), round.toUpperCase())
        t.match(await talk.response, { statusCode: 200, statusMessage: 'OK', httpVersion: '1.1', headers: { 'transfer-encoding': 'chunked' }, informational: [] })
        t.equal(await say(talk, 'more'), 'MORE')
        talk.setTrailers({ 'X-Sum': 42 }).end()
        t.equal(await text(talk), '')
        t.strictSame({ ...talk.trailers }, { 'x-sum': '42' })
        t.throws(() => talk.setTrailers({ a: 1 }), { code: 'FST_ERR_DUPLEX_NO_TRAILERS' })
        await closed(talk)
        t.equal(agent.connections, 1)
      }
    })

    await t.test('bulk both ways', async (t) => {
      const content = Buffer.alloc(4 * 1024 * 1024, 'abcdefghijklmnopqrstuvwxyz')
      const chunks = Array.from({ length: 64 }, (_, i) => content.subarray(i * 65536, (i + 1) * 65536))
      const bulk = call('/echo', { method: 'POST', payload: Readable.from(chunks) })
      const received: Buffer[] = []
      for await (const chunk of bulk) received.push(chunk)
      t.equal(hash(Buffer.concat(received)), hash(content))
      const piped = call('/echo', { method: 'POST' })
      const [back] = await Promise.all([text(piped), pipeline(Readable.from(chunks), piped)])
      t.equal(hash(back), hash(content))
    })

    await t.test('HEAD, 204, 304, interim responses', async (t) => {
      t.equal(await text(call('/hints', { method: 'HEAD' })), '')
      for (const status of [204, 304, 404]) t.strictSame(await whole(call(`/status/${status}`)), { statusCode: status, body: '' })
      const hints = call('/hints')
      const [interim] = await once(hints, 'information')
      t.match(interim, { statusCode: 103, headers: { link: '</a>' } })
      t.match(await hints.response, { informational: [interim] })
      t.equal(await text(hints), 'hints')
      t.equal(agent.connections, 1)
    })

    await t.test('tunnels: 101 and CONNECT, and what is said before the server has agreed', async (t) => {
      for (const [path, options] of [['/tunnel', { headers: { upgrade: 'x' } }], ['/', { method: 'CONNECT', path: 'a:1' }]] as const) {
        const tunnel = call(path, options)
        tunnel.write('early')
        t.match(await tunnel.response, { statusCode: path === '/' ? 200 : 101 })
        t.equal(String((await once(tunnel, 'data'))[0]), 'early')
        t.equal(await say(tunnel, 'later'), 'later')
        tunnel.end('last')
        t.equal(await text(tunnel), 'last')
      }
      await until(() => agent.connections === 0)
    })

    await t.test('the socket', async (t) => {
      const talk = call('/echo', { method: 'POST' })
      t.equal(await say(talk, 'a'), 'a')
      t.equal('encrypted' in talk.socket!, transport === 'tls')
      if (transport === 'tls') t.equal((talk.socket as tls.TLSSocket).alpnProtocol, 'http/1.1')
      const raw: Buffer[] = []
      talk.socket!.on('data', (chunk) => raw.push(chunk))
      t.equal(await say(talk, 'b'), 'b')
      t.match(Buffer.concat(raw).toString(), /\r\nb\r\n$/, 'code that listens to the socket sees its bytes, and the call too')
      talk.end()
      t.equal(await text(talk), '')
    })
  })
}

t.test('requests of every kind', async (t) => {
  const { call, url, agent } = await start(t, 'tcp')
  const request = async (options: OpenOptions<undefined, undefined>, path = '/request'): Promise<object> => JSON.parse(await text(call(path, options)))
  t.match(await request({}), { method: 'GET', url: '/request', framing: 'none', headers: { host: url.slice(7), 'user-agent': 'fastify-duplex' } })
  t.match(await request({ query: { a: 'b c' } }, '/request?x#fragment'), { url: '/request?x&a=b+c' })
  t.match(await request({ path: '/request', query: 'b' }, '/other'), { url: '/request?b=' })
  t.match(await request({ method: 'put', payload: 'text', headers: { Host: 'other', 'User-Agent': undefined } }), { method: 'PUT', framing: 'length', body: 'text', headers: { host: 'other', 'user-agent': undefined } })
  t.match(await request({ method: 'POST', payload: Buffer.from('bytes') }), { framing: 'length', body: 'bytes' })
  t.match(await request({ method: 'POST', payload: '' }), { body: '', headers: { 'content-length': '0' } })
  t.match(await request({ method: 'POST', payload: { a: 1 } }), { body: '{"a":1}', headers: { 'content-type': 'application/json' } })
  t.match(await request({ method: 'POST', payload: Readable.from(['a', 'b']) }), { framing: 'chunked', body: 'ab' })
  t.match(await request({ method: 'DELETE', payload: (async function * () { yield 'c'; yield Buffer.from('d') })() }), { framing: 'chunked', body: 'cd' })
  t.match(await request({ method: 'POST', payload: new Blob(['web']).stream() }), { framing: 'chunked', body: 'web' })
  t.match(await request({ method: 'POST', payload: Readable.from(['a']), headers: { trailer: 'x-sum' } }), { framing: 'chunked', headers: { trailer: 'x-sum' } })
  t.match(await request({ method: 'POST', payload: 'e', headers: { 'transfer-encoding': 'chunked' } }), { framing: 'chunked', body: 'e' })
  const written = call('/request', { method: 'POST', headers: { 'content-length': 4 } })
  written.write('te')
  await immediate()
  written.end('xt')
  t.match(JSON.parse(await text(written)), { framing: 'length', body: 'text' })
  t.equal(await text(open(new URL('/hints', url), { agent })), 'hints')
  t.equal(await text(open(`${url}/hints`)), 'hints', 'with the agent of the process')
})

t.test('what cannot be sent is told at once', async (t) => {
  const { call, url, agent } = await start(t, 'tcp')
  const wrong = (options: object, target = `${url}/request`): (() => void) => () => open(target, { agent, ...options } as OpenOptions)
  for (const [name, value] of Object.entries({ playload: 'a', url: '/', constructor: 1, agent: {}, payload: 5, headersTimeout: -1, bodyTimeout: 1.5, expectTimeout: 2 ** 31, maxHeadSize: '1', maxTrailerSize: Infinity, maxChunkExtensionSize: NaN, receive: 'jsonl', send: sse({}) })) {
    t.throws(wrong({ method: 'POST', [name]: value }), { code: 'FST_ERR_DUPLEX_OPTION', message: new RegExp(`"${name}"`) })
  }
  for (const payload of [new Blob(['a']), new ArrayBuffer(1), new URLSearchParams('a=b'), new FormData()]) {
    t.throws(wrong({ method: 'POST', payload }), { code: 'FST_ERR_DUPLEX_OPTION', message: /"payload"/ })
  }
  for (const target of ['/path', 'ftp://a/', 'http://', 'http://a:b@c/', 'unix:relative']) t.throws(wrong({}, target), { code: 'FST_ERR_DUPLEX_OPTION', message: /"url"/ }, target)
  t.throws(wrong({ method: 'CONNECT' }), { code: 'FST_ERR_DUPLEX_OPTION', message: /"path"/ })
  for (const options of [{ method: 'A B' }, { path: '/a b' }, { path: '/ä' }, { headers: { a: 'b\r\nc: d' } }, { headers: { 'a:': 'b' } }, { query: '', path: '/\r\n' }]) t.throws(wrong(options), { code: 'FST_ERR_DUPLEX_FIELD' })
  t.throws(wrong({ headers: { 'content-length': 1, 'transfer-encoding': 'chunked' } }), { code: 'FST_ERR_DUPLEX_FRAMING' })
  t.throws(wrong({ headers: { 'transfer-encoding': 'gzip, chunked' } }), { code: 'FST_ERR_DUPLEX_TRANSFER_CODING' })
  for (const field of ['content-length', 'transfer-encoding']) {
    t.throws(wrong({ method: 'POST', headers: { upgrade: 'x', [field]: field === 'content-length' ? 5 : 'chunked' } }), { code: 'FST_ERR_DUPLEX_OPTION', message: /"payload"/ })
  }
  for (const options of [{ maxConnections: 0 }, { idleTimeout: 1.5 }, { connectTimeout: 2 ** 31 }, { other: 1 }]) t.throws(() => new Agent(options), { code: 'FST_ERR_DUPLEX_OPTION' })
  new Agent({ maxConnections: undefined, tls: {} }).close()
  t.equal(agent.connections, 0, 'no connection was opened for any of them')

  for (const [options, words, code] of [
    [{ headers: { 'content-length': 3 } }, 'four', 'FST_ERR_DUPLEX_LENGTH'],
    [{ headers: { 'content-length': 5 } }, 'four', 'FST_ERR_DUPLEX_LENGTH'],
    [{ payload: (async function * () { throw Object.assign(new Error(), { code: 'MINE' }) })() }, undefined, 'MINE'],
    [{ payload: Readable.from([{}]) }, undefined, 'ERR_INVALID_ARG_TYPE']
  ] as [OpenOptions<undefined, undefined>, string | undefined, string][]) {
    const bad = call('/request', { method: 'POST', ...options })
    if (words !== undefined) bad.end(words)
    t.equal(await failureOf(bad), code)
  }
  await until(() => agent.connections === 0)
})

t.test('TLS: the name, the authority, client certificates, ALPN', async (t) => {
  const server = await play(t, { transport: 'tls', server: { ALPNProtocols: ['h2', 'http/1.1'] } })
  const answers = async (agent: PublicAgent, url = server.url): Promise<string> => {
    const call = open(url, { agent })
    const failed = failureOf(call)
    const answered = server.accept().then(async (peer) => peer.answer(BODY('in', 'Connection: close')))
    const outcome = await Promise.race([failed, answered])
    if (outcome.startsWith('FST_')) {
      const [error] = [call.errored as Error & { cause: { code: string } }]
      return `${outcome} ${error.cause.code}`
    }
    const { alpnProtocol, authorized } = call.socket as tls.TLSSocket
    return `${await text(call)} ${alpnProtocol} ${authorized}`
  }
  const agent = (options: tls.ConnectionOptions): PublicAgent => new Agent({ tls: options })
  t.equal(await answers(agent({ ca: TLS.cert })), 'in http/1.1 true')
  t.equal(await answers(agent({ ca: TLS.cert }), `https://localhost:${server.port}`), 'in http/1.1 true')
  t.equal(await answers(agent({ rejectUnauthorized: false })), 'in http/1.1 false')
  const refusals = await play(t, { transport: 'tls' })
  for (const [options, code] of [[{}, 'DEPTH_ZERO_SELF_SIGNED_CERT'], [{ ca: TLS.cert, servername: 'example.com' }, 'ERR_TLS_CERT_ALTNAME_INVALID']] as const) {
    const call = open(refusals.url, { agent: agent(options) })
    t.equal(await failureOf(call), 'FST_ERR_DUPLEX_CONNECT')
    t.match((call.errored as Error).cause, { code })
  }

  const names: string[] = []
  const strict = await play(t, { transport: 'tls', server: { requestCert: true, rejectUnauthorized: true, ca: TLS.cert, SNICallback: (name: string, done: (error: null) => void) => { names.push(name); done(null) } } })
  const known = open(strict.url, { agent: agent({ ca: TLS.cert, ...TLS, servername: 'localhost' }) })
  const peer = await strict.accept()
  t.equal((peer.socket as tls.TLSSocket).getPeerCertificate().subject.CN, 'localhost')
  await peer.answer(BODY('known'))
  t.equal(await text(known), 'known')
  t.strictSame(names, ['localhost'])
  const unknown = await failureOf(open(strict.url, { agent: agent({ ca: TLS.cert }) }))
  t.ok(['FST_ERR_DUPLEX_CONNECT', 'FST_ERR_DUPLEX_SERVER_GONE', 'FST_ERR_DUPLEX_TRUNCATED'].includes(unknown), unknown)

  const other = await play(t, { transport: 'tls', server: { ALPNProtocols: ['h2'] } })
  t.equal(await failureOf(other.open()), 'FST_ERR_DUPLEX_CONNECT', 'a server that speaks HTTP/2 only')
  const plain = await play(t)
  const speaksPlain = open(plain.url.replace('http:', 'https:'), { agent: agent({}) })
  plain.accept().then((peer) => peer.send(BODY('no TLS')), () => t.fail())
  t.equal(await failureOf(speaksPlain), 'FST_ERR_DUPLEX_CONNECT')
})

t.test('there is no server', async (t) => {
  const { port } = await play(t)
  const agent = new Agent()
  const closed = await play(t)
  closed.agent.close()
  for (const url of ['unix:/nowhere/socket:/', 'http://127.0.0.1:1/', 'http://localhost:1/', 'http://nowhere.invalid/', 'https://nowhere.invalid/']) {
    const call = open(url, { agent })
    t.equal(await failureOf(call), 'FST_ERR_DUPLEX_CONNECT', url)
    t.match((call.errored as Error).message, /^Cannot connect to .*: .+/)
    t.equal(call.socket, null)
  }
  t.equal(agent.connections, 0)
  const { lookup } = dns
  t.teardown(() => { dns.lookup = lookup })
  dns.lookup = ((_host: string, _options: object, done: Function) => process.nextTick(done, null, [{ address: '127.0.0.1', family: 4 }, { address: '127.0.0.2', family: 4 }])) as never
  const both = open('http://two.invalid:1/', { agent })
  t.equal(await failureOf(both), 'FST_ERR_DUPLEX_CONNECT')
  t.match((both.errored as Error).message, /^Cannot connect to .*: .+/, 'several addresses')
  dns.lookup = lookup
  // A server that never finishes the handshake.
  t.equal(await failureOf(open(`https://127.0.0.1:${port}/`, { agent: new Agent({ connectTimeout: 20 }) })), 'FST_ERR_DUPLEX_SERVER_TIMEOUT')
})

t.test('early answers', async (t) => {
  const server = await play(t)

  await t.test('the response is whole, and the upload goes on', async (t) => {
    const call = server.open({ method: 'POST' })
    call.write('one')
    const peer = await server.accept()
    await peer.until('one\r\n')
    peer.send(BODY('enough'))
    t.equal(await text(call), 'enough', 'also read in a loop')
    call.write('two')
    await peer.until('two\r\n')
    call.end()
    t.equal(await peer.until('0\r\n\r\n'), '0\r\n\r\n')
    await closed(call)
    const next = server.open()
    await peer.answer(BODY('next'))
    t.equal(await text(next), 'next', 'on the same connection')
    t.equal(server.peers.length, 1)
  })

  await t.test('a loop that is left destroys the call', async (t) => {
    const call = server.open({ method: 'POST' })
    const peer = server.peers[0]
    await peer.answer(OK('Content-Length: 10') + 'half')
    for await (const chunk of call) {
      if (String(chunk) === 'half') break
    }
    t.equal(call.destroyed, true)
    t.equal(await peer.closed, 'ECONNRESET')
  })

  // The server closes behind its answer. What is still written is dropped, by whichever kind of writer.
  for (const [name, close] of [['ends its side, and closes on the next bytes', 'end'], ['resets the connection', 'reset']] as const) {
    await t.test(`the server ${name}`, async (t) => {
      const chunk = Buffer.alloc(65536, 'a')
      const cut = async (options: OpenOptions<undefined, undefined> = {}, first = 'one'): Promise<[ClientCall, () => Promise<void>]> => {
        const call = server.open({ method: 'POST', ...options })
        if (options.payload === undefined) call.write(first)
        const peer = await server.accept()
        await peer.until(first)
        peer.send(BODY('enough', 'Connection: close'))
        await once(call, 'response')
        return [call, async () => {
          if (close === 'end') peer.socket.destroySoon()
          else peer.socket.resetAndDestroy()
          await peer.closed
        }]
      }
      const [written, closeWritten] = await cut()
      await closeWritten()
      for (let i = 0; i < 20; i++) {
        if (!written.write(chunk)) await once(written, 'drain')
        await immediate()
      }
      written.end('the end')
      await finished(written, { readable: false })
      t.equal(await text(written), 'enough', 'a loop of writes')
      t.equal(written.errored, null)

      const [piped, closePiped] = await cut()
      const uploaded = pipeline(Readable.from(Array.from({ length: 200 }, () => chunk)), piped)
      await closePiped()
      const [body] = await Promise.all([text(piped), uploaded])
      t.equal(body, 'enough', 'a pipeline')

      let returned = false
      const endless = async function * (): AsyncGenerator<Buffer | string> {
        try {
          yield 'one'
          for (;;) {
            await immediate()
            yield chunk
          }
        } finally {
          returned = true
        }
      }
      const [paid, closePaid] = await cut({ payload: endless() })
      await closePaid()
      t.equal(await text(paid), 'enough', 'a payload')
      await closed(paid)
      t.equal(paid.errored, null)
      await until(() => returned)

      const [silent, closeSilent] = await cut()
      t.equal(await text(silent), 'enough', 'a writer that has nothing to say')
      await closeSilent()
      silent.end()
      await closed(silent)
      t.equal(silent.errored, null)
    })
  }
  await until(() => server.agent.connections === 0)
})

t.test('Expect', async (t) => {
  const server = await play(t)
  const call = (options: OpenOptions<undefined, undefined> = {}): ClientCall => server.open({ method: 'PUT', headers: { expect: '100-continue' }, expectTimeout: 60_000, ...options })

  await t.test('100', async (t) => {
    const put = call({ payload: Readable.from(['bo', 'dy']) })
    const peer = await server.accept()
    t.match(await peer.head(), /\r\nexpect: 100-continue\r\n/)
    peer.send(head('103 Early Hints'))
    await once(put, 'information')
    t.equal(peer.received, '')
    peer.send(head('100 Continue'))
    await peer.until('0\r\n\r\n')
    peer.send(BODY('thanks'))
    t.match(await put.response, { informational: [{ statusCode: 103 }, { statusCode: 100 }] })
    t.equal(await text(put), 'thanks')
    const small = call({ payload: 'body' })
    await peer.head()
    peer.send(head('100 Continue'))
    t.equal(await peer.until('body'), 'body')
    peer.send(BODY('again'))
    t.equal(await text(small), 'again', 'on the same connection')
    const without = call({ payload: '' })
    await peer.answer(BODY('at once'))
    t.equal(await text(without), 'at once', 'no body, nothing to wait for')
  })

  await t.test('no 100 in time', async (t) => {
    const put = call({ payload: 'body', expectTimeout: 10 })
    const [peer] = server.peers
    await peer.head()
    t.equal(await peer.until('body'), 'body')
    peer.send(head('100 Continue') + BODY('late'))
    t.equal(await text(put), 'late')
  })

  await t.test('a final answer that wants the body', async (t) => {
    const put = call()
    put.end('body')
    const [peer] = server.peers
    await peer.head()
    peer.send(OK('Transfer-Encoding: chunked'))
    t.equal(await peer.until('0\r\n\r\n'), '4\r\nbody\r\n0\r\n\r\n')
    peer.send('2\r\nok\r\n0\r\n\r\n')
    t.equal(await text(put), 'ok')
    t.equal(server.agent.connections, 1)
  })

  await t.test('a refusal: the body is not sent, and the connection is closed', async (t) => {
    let returned = false
    const payload = (async function * () {
      try {
        for (;;) yield 'body'
      } finally {
        returned = true
      }
    })()
    const refusal = head('413 Too Much', 'Content-Length: 2') + 'no'
    for (const options of [{ payload: 'body' }, { payload }, {}]) {
      const put = call(options)
      if (options.payload === undefined) {
        put.write('body')
        put.write('more')
      }
      const peer = server.peers[server.peers.length - 1].socket.destroyed ? await server.accept() : server.peers[0]
      await peer.answer(refusal)
      t.strictSame(await whole(put), { statusCode: 413, body: 'no' })
      if (options.payload === undefined) {
        t.equal(put.write('dropped'), true)
        put.end()
      }
      await closed(put)
      t.equal(put.errored, null)
      await peer.ended
      t.equal(peer.received, '', 'nothing of the body')
      peer.socket.destroy()
      await peer.closed
    }
    await until(() => returned)
    t.equal(server.agent.connections, 0)
  })
})

t.test('tunnels', async (t) => {
  const server = await play(t)
  const SWITCH = head('101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: x')

  await t.test('bytes behind the head', async (t) => {
    for (const [options, answer] of [[{ headers: { upgrade: 'x, y' } }, SWITCH], [{ method: 'CONNECT', path: 'a:1' }, OK('Content-Length: 3')]] as const) {
      const tunnel = server.open(options)
      tunnel.write('ours')
      const peer = await server.accept()
      const request = await peer.head()
      t.match(request, options.method === 'CONNECT' ? /^CONNECT a:1 HTTP\/1\.1\r\nhost: a:1\r\n/ : /\r\nupgrade: x, y\r\nconnection: upgrade\r\n/)
      t.equal(peer.received, '', 'nothing before the server has agreed')
      peer.send(answer + 'theirs')
      t.equal(String((await once(tunnel, 'data'))[0]), 'theirs')
      t.equal(await peer.until('ours'), 'ours')
      tunnel.destroy()
      await peer.closed
    }
  })

  await t.test('each half closes on its own', async (t) => {
    const tunnel = server.open({ headers: { upgrade: 'x' } })
    const peer = await server.accept()
    await peer.answer(SWITCH + 'all')
    peer.socket.end()
    t.equal(await text(tunnel), 'all')
    t.equal(tunnel.destroyed, false)
    tunnel.write('still ')
    await peer.until('still ')
    tunnel.end('open')
    await peer.ended
    t.equal(peer.received, 'open')
    t.equal(await peer.closed, null)
    const other = server.open({ headers: { upgrade: 'x' } })
    const second = await server.accept()
    await second.answer(SWITCH)
    other.end('first')
    await second.ended
    second.socket.end('last')
    t.equal(await text(other), 'last')
    t.equal(await second.closed, null)
  })

  await t.test('a tunnel that is cut off', async (t) => {
    const tunnel = server.open({ headers: { upgrade: 'x' } })
    const peer = await server.accept()
    await peer.answer(SWITCH + 'half')
    await once(tunnel, 'data')
    peer.socket.resetAndDestroy()
    const [error] = await once(tunnel, 'error').catch((error) => [error])
    t.equal(error.code, 'FST_ERR_DUPLEX_SERVER_GONE')
    t.equal(error.cause.code, 'ECONNRESET')
    const half = server.open({ headers: { upgrade: 'x' } })
    const second = await server.accept()
    await second.answer(SWITCH)
    second.socket.end()
    t.equal(await text(half), '')
    second.socket.resetAndDestroy()
    await second.closed
    half.on('drain', () => {})
    const failed = once(half, 'error').catch((error) => [error])
    while (!half.destroyed) {
      half.write('lost')
      await immediate()
    }
    t.equal((await failed)[0].code, 'FST_ERR_DUPLEX_SERVER_GONE', 'what was written behind the end of the other half is missing')
  })

  await t.test('refusals', async (t) => {
    const answer = head('403 Forbidden', 'Content-Length: 2') + 'no'
    for (const options of [{ headers: { upgrade: 'x' } }, { method: 'CONNECT', path: 'a:1' }, { method: 'POST', headers: { upgrade: 'x' }, payload: 'body' }]) {
      const refused = server.open(options)
      refused.write('dropped')
      const peer = server.agent.connections > 1 || server.peers.every(({ socket }) => socket.destroyed) ? await server.accept() : server.peers[server.peers.length - 1]
      await peer.head()
      if (options.payload !== undefined) t.equal(await peer.until('body'), 'body')
      peer.send(answer)
      t.strictSame(await whole(refused), { statusCode: 403, body: 'no' })
      await new Promise((resolve) => refused.write('dropped, too', resolve))
      t.equal(refused.write('and this', 'latin1'), false, 'in the next turn of the event loop')
      await once(refused, 'drain')
      let drains = 0
      refused.on('drain', () => { drains++; refused.end() })
      await new Promise<void>((resolve) => refused.end('and this', resolve).end())
      for (let turn = 0; turn < 10; turn++) await immediate()
      t.ok(drains < 2, 'end() makes no stream drain. Only closing does, once')
      await closed(refused)
      t.equal(refused.errored, null)
      t.equal(peer.received, '')
    }
    t.equal(server.agent.connections, 1, 'and the connection is kept')
  })

  await t.test('a switch that was not offered', async (t) => {
    for (const [options, answer] of [
      [{}, SWITCH],
      [{ headers: { upgrade: 'y' } }, SWITCH],
      [{ headers: { upgrade: 'x', connection: 'close' } }, SWITCH],
      [{ headers: { upgrade: 'x' } }, head('101 Switching Protocols')],
      [{ method: 'CONNECT', path: 'a:1' }, SWITCH]
    ] as const) {
      const call = server.open(options)
      const peer = server.agent.connections === 1 && !server.peers[server.peers.length - 1].socket.destroyed ? server.peers[server.peers.length - 1] : await server.accept()
      peer.answer(answer + 'smuggled').catch(() => t.fail())
      t.equal(await failureOf(call), 'FST_ERR_DUPLEX_UPGRADE')
      await peer.closed
    }
  })
})

t.test('responses of HTTP/1.0, and such that end with the connection', async (t) => {
  const server = await play(t)
  for (const answer of ['HTTP/1.0 200 OK\r\n\r\nbody', OK() + 'body', 'HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody', BODY('body', 'Connection: foo, Close')]) {
    const call = server.open()
    const peer = await server.accept()
    await peer.answer(answer)
    if (!answer.includes('Length')) peer.socket.end()
    t.equal(await text(call), 'body')
    await peer.ended
    peer.socket.destroy()
  }
  const asked = server.open({ headers: { connection: 'close' } })
  const peer = await server.accept()
  t.match(await peer.answer(BODY('body')), /\r\nconnection: close\r\n/)
  t.equal(await text(asked), 'body')
  await peer.ended
  t.equal(server.agent.connections, 0, 'a request that asks to close')
})

t.test('items both ways', async (t) => {
  const { url, agent } = await start(t, 'tcp')
  for (const receive of [jsonl({}), sse({})]) {
    const rows = open(`${url}/rows`, { agent, send: jsonl({}), receive })
    for (const id of [1, 2, 3]) t.equal(rows.send({ id }), true)
    for await (const row of rows.items) {
      t.strictSame(row, { got: { id: 1 } })
      if (row !== null) break // and another loop continues
    }
    rows.end()
    const rest: unknown[] = []
    for await (const row of rows.items) rest.push(row)
    t.strictSame(rest, [{ got: { id: 2 } }, { got: { id: 3 } }])
  }
  const refused = open(`${url}/nowhere`, { agent, receive: jsonl({}) })
  await t.rejects(refused.items[Symbol.asyncIterator]().next(), { code: 'FST_ERR_DUPLEX_RESPONSE', statusCode: 404 })
  const plain = open(`${url}/hints`, { agent })
  t.throws(() => (plain as any).items, { code: 'FST_ERR_DUPLEX_OPTION' })
  t.throws(() => (plain as any).send({}), { code: 'FST_ERR_DUPLEX_OPTION' })
  t.equal(await text(plain), 'hints')

  await t.test('cut off: the items before come first, and no writer waits', async (t) => {
    const server = await play(t)
    const cut = open(server.url, { agent: server.agent, method: 'POST', send: jsonl({}), receive: jsonl({}) })
    cut.send({})
    const peer = await server.accept()
    await peer.until('{}\n\r\n')
    peer.send(OK('Content-Type: application/jsonl', 'Transfer-Encoding: chunked') + '4\r\n1\n2\n\r\n')
    await once(cut, 'response')
    await until(() => cut.readableLength === 4)
    peer.send('x')
    await peer.closed
    t.equal(cut.destroyed, false)
    await new Promise((resolve) => cut.write('dropped', resolve))
    const items: unknown[] = []
    await t.rejects(async () => { for await (const item of cut.items) items.push(item) }, { code: 'FST_ERR_DUPLEX_CHUNK' })
    t.strictSame(items, [1, 2])
  })
})

t.test('signal', async (t) => {
  const server = await play(t, { agent: { maxConnections: 1 } })
  const reason = Object.assign(new Error('enough'), { code: 'MINE' })
  t.throws(() => server.open({ signal: AbortSignal.abort(reason) }), { code: 'MINE' })
  t.equal(server.agent.connections, 0)

  const listening = async (): Promise<[AbortController, ClientCall]> => {
    const controller = new AbortController()
    return [controller, server.open({ method: 'POST', signal: controller.signal })]
  }
  const [connecting, first] = await listening()
  connecting.abort(reason)
  t.equal(await failureOf(first), 'MINE', 'while it connects')
  t.equal(server.agent.connections, 0)

  const [, holder] = await listening()
  const [waiting, second] = await listening()
  waiting.abort(reason)
  t.equal(await failureOf(second), 'MINE', 'while it waits for its turn')
  holder.destroy()
  await t.rejects(holder.response, { code: 'FST_ERR_DUPLEX_ABORTED' })
  await until(() => server.agent.connections === 0)

  for (const answer of ['', 'HTTP/1.1 200', OK('Content-Length: 10') + 'half', BODY('whole')]) {
    const [controller, call] = await listening()
    call.write('body')
    const peer = await server.peerOf(call)
    await peer.until('body\r\n')
    if (answer !== '') {
      peer.send(answer)
      await until(() => call.socket!.bytesRead >= answer.length)
    }
    const failed = once(call, 'error').catch((error) => [error])
    const pending = new Promise<{ code: string } | undefined>((resolve) => {
      call.write(Buffer.alloc(64 * 1024 * 1024), (error: any) => resolve(error))
    })
    await untilStuck(() => peer.socket.bytesRead)
    controller.abort(reason)
    t.equal((await failed)[0].code, 'MINE')
    t.ok([undefined, 'MINE'].includes((await pending)?.code), 'no writer waits for ever')
    t.equal(await peer.closed, 'ECONNRESET')
  }

  const done = new AbortController()
  const call = server.open({ signal: done.signal })
  const peer = await server.peerOf(call)
  await peer.answer(BODY('whole'))
  t.equal(await text(call), 'whole')
  await closed(call)
  done.abort()
  t.equal(call.errored, null)
  t.equal(server.agent.connections, 1, 'a call that is over is not touched')
})

t.test('a writer whose call waits or is destroyed is told', async (t) => {
  const server = await play(t, { agent: { maxConnections: 1 } })
  const first = server.open({ method: 'POST' })
  const second = server.open({ method: 'POST' })
  const written = new Promise<Error | null | undefined>((resolve) => second.write('waits', resolve))
  await immediate()
  second.destroy()
  t.match(await written, { code: 'FST_ERR_DUPLEX_ABORTED' })
  first.destroy()
})

t.test('backpressure both ways', async (t) => {
  const server = await play(t)
  const call = server.open({ method: 'POST' })
  const peer = await server.accept()
  await peer.head()
  peer.socket.pause()
  let writes = 0
  const chunk = Buffer.alloc(65536)
  while (writes < 1000 && call.write(chunk)) {
    writes++
    await untilStuck(() => peer.socket.bytesRead + call.writableLength)
  }
  t.ok(writes < 1000, 'write() tells that the server does not read')
  peer.send(OK('Transfer-Encoding: chunked'))
  await once(call, 'response')
  let sent = 0
  const part = '10000\r\n' + 'a'.repeat(65536) + '\r\n'
  while (sent < 1000 && peer.socket.write(part)) {
    sent++
    await untilStuck(() => call.socket!.bytesRead)
  }
  t.ok(sent < 1000, 'the server is told that we do not read')
  t.ok(call.readableLength < 512 * 1024)
  peer.socket.resume()
  call.end()
  await finished(call, { readable: false })
  peer.send('0\r\n\r\n')
  let received = 0
  for await (const chunk of call) received += chunk.length
  t.equal(received, (sent + 1) * 65536)
  const next = server.open()
  peer.received = ''
  await peer.answer(BODY('next'))
  t.equal(await text(next), 'next')
})

t.test('a response that waits in its stream does not hold up the next call on its connection', async (t) => {
  const server = await play(t)
  const content = 'a'.repeat(40_000)
  const first = server.open()
  const peer = await server.accept()
  await peer.answer(BODY(content))
  await first.response
  await until(() => first.readableLength === content.length)
  const second = server.open()
  await peer.answer(OK('Content-Length: 10000000') + content)
  await second.response
  await until(() => second.readableLength >= content.length)
  const read = second.readableLength
  // Reading the first one must not make the connection read on for the second one.
  t.equal(await text(first), content)
  peer.socket.write('b'.repeat(1_000_000))
  await untilStuck(() => second.readableLength)
  t.ok(second.readableLength - read < 512 * 1024)
  second.destroy()
})

t.test('a listener that throws does not let bytes be taken for others', async (t) => {
  const server = await play(t)
  for (const event of ['information', 'response', 'data']) {
    const call = server.open()
    const peer = await server.accept()
    call.on(event, () => { throw new Error('mine') })
    const failed = once(call, 'error').catch((error) => [error])
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve))
    await peer.answer(head('103 Early Hints') + BODY(BODY('smuggled')))
    t.match(await thrown, { message: 'mine' }, event)
    t.match(await failed, [{ message: 'mine' }])
    await peer.closed
  }
})

t.test('a payload that is a stream is closed with its call', async (t) => {
  const server = await play(t)
  const payload = new PassThrough()
  const call = server.open({ method: 'POST', payload })
  payload.write('a')
  const peer = await server.accept()
  await peer.until('a\r\n')
  peer.socket.resetAndDestroy()
  t.equal(await failureOf(call), 'FST_ERR_DUPLEX_SERVER_GONE')
  await until(() => payload.destroyed)
  const late = server.open({ method: 'POST', payload: new PassThrough() })
  late.destroy()
  await closed(late)
  t.strictSame(await outcomeOf(server.open({ payload: 'a', headers: { 'content-length': 3 } })), { statuses: [], content: '', trailers: {}, code: 'FST_ERR_DUPLEX_LENGTH' })
})

t.test('a call that is destroyed by the listener for its last content', async (t) => {
  const server = await play(t)
  for (const answer of [BODY('last'), BODY('last') + BODY('more'), OK('Transfer-Encoding: chunked') + '4\r\nlast\r\n0\r\n\r\n']) {
    const call = server.open()
    const peer = await server.peerOf(call)
    let ended = false
    call.on('data', () => call.destroy()).on('end', () => { ended = true })
    await peer.answer(answer)
    await closed(call)
    await peer.closed
    t.equal(ended, false)
    t.equal(server.agent.connections, 0)
  }
})

t.test('one call piped into another', async (t) => {
  const { call } = await start(t, 'tcp')
  const content = Buffer.alloc(8 * 1024 * 1024, 'abcdefghijklmnopqrstuvwxyz')
  const source = call('/echo', { method: 'POST', payload: Readable.from([content]) })
  const target = call('/echo', { method: 'POST' })
  await Promise.all([source.response, target.write('') || once(target, 'drain')])
  const back = text(target)
  source.pipe(target)
  t.equal(hash(await back), hash(content))
  const server = await play(t)
  const get = server.open()
  const peer = await server.peerOf(get)
  await peer.answer(OK('Transfer-Encoding: chunked'))
  await get.response
  const put = server.open({ method: 'PUT', headers: { expect: '100-continue' }, expectTimeout: 60_000 })
  const other = await server.peerOf(put)
  await other.head()
  get.pipe(put)
  await immediate()
  peer.send('3\r\none\r\n')
  await until(() => put.writableLength === 3)
  peer.send('3\r\ntwo\r\n0\r\n\r\n')
  other.send(head('100 Continue'))
  t.equal((await other.until('0\r\n\r\n')).replaceAll(/\r\n|\d/g, ''), 'onetwo', 'what is piped waits with the call')
  other.send(BODY('thanks'))
  t.equal(await text(put), 'thanks')
  const plain = call('/echo', { method: 'POST', payload: Readable.from([content]) })
  const passing = new PassThrough()
  t.equal(hash(await text(plain.pipe(passing))), hash(content))
})
