// What becomes of heads: fields, targets, status, and the answers of the proxy itself.

import net from 'node:net'
import http2 from 'node:http2'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import duplex from '../../lib/index.ts'
import { duplexProxy, proxy } from '../../lib/proxy/index.ts'
import { startersOf } from '../support/http1.ts'
import { GET, dial, serve, socketPath } from '../support/wire.ts'
import { type Peer, type ProxySetup, type Proxied, type Upstream, lines, ok, serveProxy, upstream } from './support.ts'

/** An upstream server that answers every request without a body, and the proxy in front of it. */
async function pair (t: Test, setup: ProxySetup = {}, answer = ok('ok')): Promise<{ served: Proxied, origin: Upstream, heads: string[] }> {
  const heads: string[] = []
  const origin = await upstream(t, async (peer) => {
    while (true) {
      heads.push(await peer.head())
      peer.send(answer)
    }
  })
  return { origin, heads, served: await serveProxy(t, origin.url, setup) }
}

const host = ({ url }: Upstream): string => `host: ${url.slice(7)}`

for (const [kind, start] of Object.entries(startersOf(t))) {
  t.test(`fields, ${kind}`, async (t) => {
    const { origin, heads, served } = await pair(t, { start }, ok('ok', [
      'Connection: keep-alive, X-Drop, content-length', 'Connection: X-Drop-Too', 'Keep-Alive: timeout=5', 'X-Drop: 1', 'X-Drop-Too: 1', 'Proxy-Authenticate: Basic', 'Proxy-Connection: x', 'TE: x',
      'Trailer: x', 'Upgrade: h2c', 'Set-Cookie: a=1; Path=/', 'Set-Cookie: b=2', 'X-Kept: 1', 'X-Kept: 2', 'Date: yesterday', 'X-Latin: \xe9\xff', ''
    ].join('\r\n')))
    const wire = await served.connect()
    const response = await wire.request('GET /a%2Fb%20c?q=%2F..%2f HTTP/1.1\r\nHost: front\r\nConnection: close-not, X-Drop, te\r\nCONNECTION: \tX-Drop-Too , host\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\n' +
      'X-Drop: 1\r\nX-Drop-Too: 1\r\nX-DROP: 2\r\nTE: gzip, trailers;q=1\r\nX-Kept: 1\r\nX-Kept: 2\r\nCookie: a=1\r\nUser-Agent: me\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Latin: \xe9\xff\r\nAccept: a\r\nAccept: b\r\n\r\n')
    t.strictSame(lines(heads[0]), ['GET /a%2Fb%20c?q=%2F..%2f HTTP/1.1', 'accept: a', 'accept: b', 'connection: te', 'cookie: a=1', host(origin), 'te: trailers', 'user-agent: me', 'x-kept: 1', 'x-kept: 2', 'x-latin: \xe9\xff'])
    const { connection, 'keep-alive': _, ...fields } = response.fields
    t.strictSame(fields, { date: 'yesterday', 'content-length': '2', 'x-kept': '1, 2', 'x-latin': '\xe9\xff' })
    t.strictSame(response.headers['set-cookie'], ['a=1; Path=/', 'b=2'])
    t.equal(response.statusMessage, 'OK')
    t.equal(connection, 'keep-alive')
    t.match(await wire.request(GET('/next')), { statusCode: 200, body: 'next' })
    t.match(await wire.request(GET('/again')), { statusCode: 200, body: 'ok' })
    t.strictSame(lines(heads[1]), ['GET /again HTTP/1.1', host(origin)], 'no user-agent of the client half')
    t.equal(origin.peers.length, 1, 'one connection')
  })
}

t.test('HTTP/2: cookies are joined, the authority is the host', async (t) => {
  const { origin, heads, served } = await pair(t, { serve: { fastify: { http2: true } }, options: { preserveHost: true, forwarded: true } }, 'HTTP/1.1 404 Not Mine\r\ncontent-length: 2\r\nconnection: x\r\nx: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nno')
  const session = http2.connect(`http://127.0.0.1:${served.port}`)
  t.teardown(() => session.destroy())
  const stream = session.request({ ':path': '/p?q', ':authority': 'front:1', cookie: ['a=1', 'b=2'], te: 'trailers' })
  const [headers] = await once(stream, 'response')
  t.match(headers, { ':status': 404, 'set-cookie': ['a=1', 'b=2'], 'content-length': '2', x: undefined })
  t.equal(await text(stream), 'no')
  t.strictSame(lines(heads[0]), ['GET /p?q HTTP/1.1', 'connection: te', 'cookie: a=1; b=2', 'forwarded: for=127.0.0.1;host="front:1";proto=http', 'host: front:1', 'te: trailers', 'x-forwarded-for: 127.0.0.1', 'x-forwarded-host: front:1', 'x-forwarded-proto: http'])
  const other = session.request({ ':path': '/' })
  await once(other, 'response')
  await text(other)
  t.equal(origin.peers.length, 1)
})

t.test('who the client is', async (t) => {
  const said = 'X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: gopher\r\nForwarded: for=1.2.3.4\r\n'
  const ask = async (trustProxy: boolean, request: string): Promise<string[]> => {
    const { served, heads } = await pair(t, { options: { forwarded: true }, serve: { fastify: { trustProxy } } })
    await (await served.connect()).request(request)
    return lines(heads[0]).filter((line) => /forwarded/.test(line))
  }
  t.strictSame(await ask(false, `GET / HTTP/1.1\r\nHost: front\r\n${said}Connection: x-forwarded-for\r\n\r\n`), [
    'forwarded: for=1.2.3.4, for=127.0.0.1;host="front";proto=http', 'x-forwarded-for: 127.0.0.1', 'x-forwarded-host: front', 'x-forwarded-proto: http'
  ], 'without trustProxy, host and protocol are what this server sees')
  t.strictSame(await ask(true, `GET / HTTP/1.1\r\nHost: front\r\n${said}\r\n`), [
    'forwarded: for=1.2.3.4, for=127.0.0.1;host="evil";proto=gopher', 'x-forwarded-for: 1.2.3.4, 127.0.0.1', 'x-forwarded-host: evil', 'x-forwarded-proto: gopher'
  ], 'with trustProxy, what the proxy before has said')
  t.strictSame(await ask(false, 'GET / HTTP/1.0\r\n\r\n'), ['forwarded: for=127.0.0.1;proto=http', 'x-forwarded-for: 127.0.0.1', 'x-forwarded-proto: http'], 'without a host')
})

t.test('who the client is, on a Unix socket and over IPv6', async (t) => {
  const heads: string[] = []
  const origin = await upstream(t, async (peer) => {
    heads.push(await peer.head())
    peer.send(ok('ok'))
  })
  const setup = (app: ReturnType<typeof Fastify>): unknown => app.all('/*', { duplex: true } as object, proxy({ upstream: new URL(origin.url), forwarded: true }))
  const onUnix = await serve(t, 'unix', setup)
  await (await onUnix.connect()).request(GET('/'))
  t.match(heads[0], /\r\nforwarded: for=unknown;host="a";proto=http\r\n/)
  t.notMatch(heads[0], /x-forwarded-for/)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  await setup(app)
  try {
    await app.listen({ port: 0, host: '::1' })
  } catch {
    t.comment('no IPv6 here')
    return
  }
  await (await dial('tcp', { port: (app.server.address() as net.AddressInfo).port, host: '::1' })).request(GET('/'))
  t.match(heads[1], /\r\nforwarded: for="\[::1\]";host="a";proto=http\r\n/)
})

t.test('preserveHost', async (t) => {
  const { served, heads } = await pair(t, { options: { preserveHost: true } })
  const wire = await served.connect()
  await wire.request('GET / HTTP/1.1\r\nHost: front:8\r\nConnection: host\r\n\r\n')
  t.strictSame(lines(heads[0]), ['GET / HTTP/1.1', 'host: front:8'], 'whatever the client says in Connection')
})

t.test('targets', async (t) => {
  const cases: [url: string, options: { base?: string, prefix?: string, rewritePrefix?: string }, expected: string | 400 | 404][] = [
    ['/', {}, '/'],
    ['/?a', {}, '/?a'],
    ['//a//b/', {}, '//a//b/'],
    ['http://other/a?b', {}, '/a?b'],
    ['HTTPS://other:1/a', {}, '/a'],
    ['http://x?/a', {}, 400],
    ['/a#b', {}, 400],
    ['/svc/x', { prefix: '/svc' }, '/x'],
    ['/svc', { prefix: '/svc' }, '/'],
    ['/svc?a=/svc', { prefix: '/svc/' }, '/?a=/svc'],
    ['/svcs/x', { prefix: '/svc' }, '/svcs/x'],
    ['/%73v%63/a%2fb', { prefix: '/svc' }, '/a%2fb'],
    ['/SVC/x', { prefix: '/svc' }, '/x'],
    ['//svc/x', { prefix: '/svc' }, '/x'],
    ['/%ff/x', { prefix: '/svc' }, 400],
    ['/%zz/x', { prefix: '/svc' }, 400],
    ['/a/svc/x', { prefix: '/:tenant/svc' }, '/x'],
    ['/a', { prefix: '/:tenant/svc' }, '/a'],
    ['/svc/x?y', { prefix: '/svc', rewritePrefix: '/api' }, '/api/x?y'],
    ['/svc?y', { prefix: '/svc', rewritePrefix: 'api/' }, '/api?y'],
    ['/svc/x', { base: '/base', prefix: '/svc', rewritePrefix: '/api/' }, '/base/api/x'],
    ['/svcs/x', { prefix: '/svc', rewritePrefix: '/api' }, 400],
    ['/t//svc/x', { prefix: '/t/:id/svc', rewritePrefix: '/api' }, 400],
    ['/svc;/x', { prefix: '/svc', rewritePrefix: '/api' }, 400],
    ['/x', { rewritePrefix: '/api' }, '/api/x'],
    ['/x', { prefix: '/', rewritePrefix: '/api' }, '/api/x'],
    ['/x', { base: '/base/' }, '/base/x'],
    ['/', { base: '/base' }, '/base/'],
    ['/.well-known/..x/...', { base: '/base' }, '/base/.well-known/..x/...'],
    ['/x?a=/../', { base: '/base' }, '/base/x?a=/../'],
    ...['/..', '/../x', '/x/../y', '/x/..', '/x/.', '/./x', '/x/%2e%2E/y', '/x/.%2e/y', '/x\\..\\y', '/x%2f..%2fy', '/x/..%5cy', '/x%5C..?', '/x/..;/y', '/x/..?y', '/x/..%3b/y'].map((url): [string, object, 400] => [url, {}, 400])
  ]
  for (const [url, { base = '', ...options }, expected] of cases) {
    const origin = await upstream(t, async (peer) => {
      const head = await peer.head()
      peer.send(ok(head.slice(4, head.indexOf(' HTTP/'))))
    })
    const { connect } = await serveProxy(t, origin.url + base, { options })
    const response = await (await connect()).request(GET(url))
    const title = `${url} ${JSON.stringify({ base, ...options })}`
    if (typeof expected === 'string') t.match(response, { statusCode: 200, body: expected }, title)
    else t.equal(response.statusCode, expected, title)
    if (expected === 400) t.match(JSON.parse(response.body).code, /^FST_ERR_(DUPLEX_PATH|BAD_URL)$/, title)
    if (typeof expected !== 'string') t.equal(origin.peers.length, 0, 'the server is not asked')
  }
})

t.test('other targets', async (t) => {
  const { served, heads } = await pair(t, { url: '*' }, 'HTTP/1.1 200 OK\r\n\r\n')
  const star = await served.connect()
  star.send('OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n')
  await star.head('OPTIONS')
  t.match(heads[0], /^OPTIONS \* HTTP\/1.1\r\n/)
  const byte = await served.connect()
  t.match(await byte.request('GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n'), { statusCode: 400 })
  const get = await served.connect()
  t.match(await get.request('GET * HTTP/1.1\r\nHost: a\r\n\r\n'), { statusCode: 400, body: /FST_ERR_DUPLEX_PATH/ })

  const { served: { port } } = await pair(t, { serve: { fastify: { http2: true } }, options: { preserveHost: true } })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  t.teardown(() => session.destroy())
  for (const [fields, code] of [[{ ':path': '/\xe9' }, 'FST_ERR_DUPLEX_PATH'], [{ ':authority': 'us@er' }, 'FST_ERR_DUPLEX_HOST'], [{ ':authority': '[::1' }, 'FST_ERR_DUPLEX_HOST']] as const) {
    const stream = session.request(fields)
    const status = await once(stream, 'response').then(([headers]) => headers[':status'], (error) => error.code)
    if (status === 'ERR_HTTP2_STREAM_ERROR') continue // some versions of Node refuse it themselves
    t.equal(status, 400)
    t.match(JSON.parse(await text(stream)), { code })
  }
})

t.test('an extended CONNECT cannot be passed on', async (t) => {
  const { served, origin } = await pair(t, { url: '/*', serve: { fastify: { http2: true, http: undefined } }, setup: (app) => { app.route({ method: 'CONNECT', url: '/chat', duplex: true, handler: proxy({ upstream: 'http://127.0.0.1:1' }) } as never) } })
  served.app.server.emit('x')
  ;(served.app.server as unknown as http2.Http2Server).updateSettings({ enableConnectProtocol: true })
  const session = http2.connect(`http://127.0.0.1:${served.port}`)
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  const stream = session.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/chat', ':scheme': 'http', ':authority': 'a' })
  const [headers] = await once(stream, 'response')
  t.equal(headers[':status'], 501)
  t.match(JSON.parse(await text(stream)), { code: 'FST_ERR_DUPLEX_TUNNEL' })
  t.equal(origin.peers.length, 0)
})

t.test('framing of requests without a body', async (t) => {
  const { served, heads } = await pair(t)
  const wire = await served.connect()
  for (const [method, fields, expected] of [
    ['GET', '', []], ['GET', 'Content-Length: 0\r\n', []], ['DELETE', '', []], ['POST', '', ['content-length: 0']], ['PROPFIND', '', []], ['PUT', 'Content-Length: 000\r\n', ['content-length: 0']]
  ] as const) {
    t.match(await wire.request(`${method} / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`), { statusCode: 200, body: 'ok' })
    t.strictSame(lines(heads.at(-1)!).filter((line) => !line.startsWith('host')), [`${method} / HTTP/1.1`, ...expected])
  }
})

t.test('responses without content, and lengths', async (t) => {
  const cases: [method: string, head: string, expected: object][] = [
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n', { statusCode: 200, fields: { 'content-length': '5' }, body: '' }],
    ['HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', { statusCode: 200, fields: { 'content-length': undefined }, body: '' }],
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n', { statusCode: 200, fields: { 'content-length': undefined }, body: '' }],
    ['GET', 'HTTP/1.1 204 No Content\r\n\r\n', { statusCode: 204, body: '' }],
    ['GET', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', { statusCode: 204, fields: { 'content-length': undefined } }],
    ['GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n', { statusCode: 304, fields: { 'content-length': '5', etag: '"x"' }, body: '' }],
    ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\nhello', { fields: { 'content-length': '5' }, body: 'hello' }],
    ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello', { fields: { 'content-length': '5' }, body: 'hello' }],
    ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello', { fields: { 'content-length': '5' }, body: 'hello' }],
    ['GET', 'HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n', { statusCode: 200, statusMessage: '', body: '' }],
    ['GET', 'HTTP/1.1 599 Own W\xf6rds\r\nContent-Length: 0\r\n\r\n', { statusCode: 599, statusMessage: 'Own W\xf6rds' }]
  ]
  for (const [method, answer, expected] of cases) {
    const { served } = await pair(t, {}, answer)
    const wire = await served.connect()
    t.match(await wire.request(`${method} / HTTP/1.1\r\nHost: a\r\n\r\n`), expected, JSON.stringify(answer))
    t.match(await wire.request(GET('/next')), { body: 'next' })
  }
})

t.test('HTTP/1.0, on both sides', async (t) => {
  const { served, heads } = await pair(t, {}, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: 1\r\n\r\n')
  const wire = await served.connect()
  const response = await wire.request('POST / HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive, te\r\nTE: trailers\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n')
  t.match(response, { statusCode: 200, body: 'ok', fields: { connection: 'close', 'transfer-encoding': undefined }, trailers: {} })
  t.notMatch(heads[0], /expect|upgrade/, 'no expectation, and no offer')
  const old = await upstream(t, async (peer) => {
    await peer.head()
    peer.send('HTTP/1.0 200 OK\r\nx: y\r\n\r\nup to the end').socket.end()
  })
  const { connect, agent } = await serveProxy(t, old.url)
  const client = await connect()
  t.match(await client.request(GET('/')), { body: 'up to the end', fields: { x: 'y', 'transfer-encoding': 'chunked', connection: 'keep-alive' } })
  t.match(await client.request(GET('/next')), { body: 'next' })
  t.equal(agent.connections, 0)
})

t.test('rewriteRequest and rewriteResponse', async (t) => {
  const { served, heads, origin } = await pair(t, {
    options: {
      rewriteRequest (head, request) {
        t.match(head, { method: 'POST', path: '/a', headers: { host: origin.url.slice(7), 'x-old': '1' } })
        t.equal(request.url, '/a')
        return { method: 'PUT', path: '/b?c', headers: { ...head.headers, 'X-New': ['2', '3'], 'x-old': undefined, Connection: 'x', 'Transfer-Encoding': 'chunked', 'content-length': 7, Upgrade: 'y', 'proxy-authorization': 'me', Host: 'other' } }
      },
      rewriteResponse (head, request, reply) {
        t.match(head, { statusCode: 200, headers: { 'content-length': 2 } })
        reply.header('x-own', '1')
        return { statusCode: 201, headers: { ...head.headers, 'x-more': '2', 'x-none': undefined, connection: 'close' } }
      }
    }
  })
  const wire = await served.connect()
  t.match(await wire.request('POST /a HTTP/1.1\r\nHost: a\r\nX-Old: 1\r\nContent-Length: 0\r\n\r\n'), { statusCode: 201, statusMessage: 'Created', body: 'ok', fields: { 'x-own': '1', 'x-more': '2', 'x-none': undefined, connection: 'close' } })
  t.strictSame(lines(heads[0]), ['PUT /b?c HTTP/1.1', 'content-length: 0', 'host: other', 'proxy-authorization: me', 'x-new: 2', 'x-new: 3'])
})

t.test('mistakes in rewriting are answered, and nothing of the response is in the answer', async (t) => {
  const wrong: [name: string, options: ProxySetup['options'], code: string][] = [
    ['throws', { rewriteResponse: () => { throw Object.assign(new Error('no'), { code: 'MINE' }) } }, 'MINE'],
    ['status', { rewriteResponse: (head) => ({ ...head, statusCode: 600 }) }, 'FST_ERR_BAD_STATUS_CODE'],
    ['interim status', { rewriteResponse: (head) => ({ ...head, statusCode: 150 }) }, 'FST_ERR_DUPLEX_STATUS'],
    ['value', { rewriteResponse: (head) => ({ ...head, headers: { ...head.headers, x: 'a\r\nb' } }) }, 'FST_ERR_DUPLEX_FIELD'],
    ['framing', { rewriteResponse: (head) => ({ ...head, headers: { ...head.headers, 'transfer-encoding': 'chunked' } }) }, 'FST_ERR_DUPLEX_OWN_FIELD'],
    ['promise', { rewriteResponse: (async () => { throw new Error('late') }) as never }, 'FST_ERR_DUPLEX_OPTION'],
    ['nothing', { rewriteResponse: (() => {}) as never }, 'FST_ERR_DUPLEX_OPTION'],
    ['no fields', { rewriteResponse: (() => ({ statusCode: 200, headers: null })) as never }, 'FST_ERR_DUPLEX_OPTION'],
    ['request promise', { rewriteRequest: (async (head: object) => head) as never }, 'FST_ERR_DUPLEX_OPTION'],
    ['no method', { rewriteRequest: (({ path, headers }: object & { path: string, headers: object }) => ({ path, headers })) as never }, 'FST_ERR_DUPLEX_OPTION'],
    ['request throws', { rewriteRequest: () => { throw Object.assign(new Error('no'), { code: 'MINE' }) } }, 'MINE'],
    ['request value', { rewriteRequest: (head) => ({ ...head, headers: { x: 'a\nb' } }) }, 'FST_ERR_DUPLEX_FIELD'],
    ['request target', { rewriteRequest: (head) => ({ ...head, path: '/a b' }) }, 'FST_ERR_DUPLEX_FIELD']
  ]
  for (const [name, options, code] of wrong) {
    for (const body of ['', 'ok']) {
      const { served } = await pair(t, { options, setup: (app) => app.addHook('onRequest', async (_request, reply) => { reply.header('x-before', '1').header('set-cookie', ['mine=1', 'mine=2']) }) }, `HTTP/1.1 203 Theirs\r\nContent-Encoding: gzip\r\nSet-Cookie: theirs=1\r\nX-Before: 2\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
      const wire = await served.connect()
      const response = await wire.request(GET('/'))
      t.match(response, { statusCode: 500, statusMessage: 'Internal Server Error', fields: { 'content-encoding': undefined, 'x-before': '1' } }, name)
      t.match(JSON.parse(response.body), { code }, name)
      t.strictSame(response.headers['set-cookie'], ['mine=1', 'mine=2'])
      t.equal(response.fields.connection, 'keep-alive')
      t.match(await wire.request(GET('/next')), { body: 'next' })
    }
  }
})

t.test('other code that ends the response, or takes the connection', async (t) => {
  for (const [name, end] of [['end', ''], ['end', '0\r\nx-sum: 1\r\n\r\n'], ['destroy', '0\r\n\r\n'], ['detach', '']]) {
    const { served, origin } = await pair(t, {
      options: {
        rewriteResponse (head, request, { duplex }) {
          if (name === 'end') duplex.end('mine')
          else if (name === 'destroy') duplex.destroy()
          else setImmediate(() => duplex.detach().socket.destroy())
          return head
        }
      }
    }, `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${end}`)
    await (await served.connect()).request(GET('/')).catch(() => {})
    if (end === '') await origin.peers[0].ended
    t.match(await (await served.connect()).request(GET('/next')), { body: 'next' }, name)
  }
})

t.test('hooks, error handlers, headers of other plugins, logs', async (t) => {
  const seen: string[] = []
  const { served } = await pair(t, {
    setup (app) {
      app.addHook('onRequest', async (request, reply) => {
        if (request.url === '/denied') return reply.code(401).send('no')
        reply.header('x-frame-options', 'deny').header('set-cookie', 'mine=1')
      })
      app.addHook('onResponse', async (request, reply) => { seen.push(`${request.url} ${reply.statusCode} ${reply.getHeader('x-theirs')}`) })
      app.setErrorHandler((error: { code?: string }, request, reply) => reply.code(599).send(error.code))
    }
  }, ok('ok', 'X-Theirs: 1\r\nSet-Cookie: theirs=1\r\n'))
  const wire = await served.connect()
  const logged = served.logged('request completed')
  const response = await wire.request(GET('/'))
  t.match(response, { body: 'ok', fields: { 'x-frame-options': 'deny', 'x-theirs': '1' }, headers: { 'set-cookie': ['mine=1', 'theirs=1'] } })
  t.match(await logged, { res: { statusCode: 200 }, responseTime: Number })
  t.match(await wire.request(GET('/denied')), { statusCode: 401, body: 'no' })
  t.match(await wire.request(GET('/../x')), { statusCode: 599, body: 'FST_ERR_DUPLEX_PATH' })
  t.match(await wire.request(GET('/next')), { body: 'next' })
  t.strictSame(seen.slice(0, 3), ['/ 200 1', '/denied 401 undefined', '/../x 599 undefined'])
})

t.test('an upstream server for each request', async (t) => {
  const one = await upstream(t, async (peer) => {
    await peer.head()
    peer.send(ok('one'))
  })
  const path = socketPath()
  const two = net.createServer((socket) => { socket.once('data', () => socket.end(ok('two'))) })
  t.teardown(() => two.close())
  await once(two.listen(path), 'listening')
  const { connect } = await serveProxy(t, ({ url }) => url === '/one' ? one.url : url === '/two' ? `unix:${path}` : 'nonsense')
  const wire = await connect()
  t.match(await wire.request(GET('/one')), { body: 'one' })
  t.match(await wire.request(GET('/two')), { body: 'two' })
  const response = await wire.request(GET('/three'))
  t.match([response.statusCode, JSON.parse(response.body).code], [500, 'FST_ERR_DUPLEX_OPTION'])
})

t.test('options', async (t) => {
  const code = 'FST_ERR_DUPLEX_OPTION'
  t.throws(() => proxy({ upstream: 'http://a', other: 1 } as never), { code })
  t.throws(() => proxy({ upstream: 'ftp://a' }), { code })
  t.throws(() => proxy({ upstream: 'http://a/?b' }), { code })
  t.throws(() => proxy({ upstream: 'http://a', bodyTimeout: -1 }), { code })
  const app = Fastify()
  t.teardown(() => app.close())
  app.get('/', proxy({ upstream: 'http://a' }))
  t.match((await app.inject('/')).json(), { code, statusCode: 500 }, 'without the plugin')
  const served = await serve(t, 'tcp', (app) => app.get('/', proxy({ upstream: 'http://a' })))
  t.match(JSON.parse((await (await served.connect()).request(GET('/'))).body), { code: 'FST_ERR_DUPLEX_NOT_ENABLED' }, 'on another route')
})

t.test('the plugin', async (t) => {
  const heads: string[] = []
  const peers: Peer[] = []
  const origin = await upstream(t, async (peer) => {
    peers.push(peer)
    while (true) {
      heads.push(await peer.head())
      peer.send(ok('ok'))
    }
  })
  const served = await serve(t, 'tcp', async (app) => {
    await app.register(duplexProxy, { prefix: '/svc', upstream: origin.url, rewritePrefix: '/api', logLevel: 'warn' as const })
    await app.register(duplexProxy, { prefix: '/:tenant/sub', upstream: origin.url, httpMethods: ['GET'], duplex: { bodyLimit: 1 }, config: { own: 1 } as object, preHandler: async (request, reply) => { reply.header('x-own', (request.routeOptions.config as { own?: number }).own) } })
    app.get('/other', async () => 'other')
  })
  const wire = await served.connect()
  for (const [path, expected] of [['/svc', '/api'], ['/svc/', '/api/'], ['/svc/a%20b?c', '/api/a%20b?c'], ['/%73vc/x', '/api/x'], ['/t/sub/x', '/x']]) {
    t.match(await wire.request(GET(path)), { statusCode: 200, body: 'ok' }, path)
    t.equal(heads.at(-1)!.split(' ')[1], expected)
  }
  t.match(await wire.request(GET('/t/sub')), { fields: { 'x-own': '1' } })
  t.match(await wire.request('DELETE /svc/x HTTP/1.1\r\nHost: a\r\n\r\n'), { body: 'ok' })
  t.match(await wire.request('DELETE /t/sub HTTP/1.1\r\nHost: a\r\n\r\n'), { statusCode: 404 })
  t.match(await wire.request('HEAD /svc/x HTTP/1.1\r\nHost: a\r\n\r\n'), { statusCode: 200, body: '' })
  t.match(heads.at(-1), /^HEAD /)
  t.match(await wire.request(GET('/other')), { body: 'other' })
  wire.socket.end()
  await served.app.close()
  await Promise.all(peers.map(({ closed }) => closed))
  t.pass('closes its idle connections with the app')
})
