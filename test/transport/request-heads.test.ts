// Requests that are refused for their head, whoever has read it: answered once, and the connection is closed.

import { text } from 'node:stream/consumers'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { startersOf } from '../support/http1.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CONNECT, GET } from '../support/wire.ts'

const STARTERS = startersOf(t)

for (const [name, start] of Object.entries(STARTERS)) {
  t.test(`${name}: what is behind a framing that is refused is not answered`, async (t) => {
    const { connect } = await start(t, (app) => {
      app.post('/', { duplex: true }, async (_request, reply) => { reply.duplex.end('served') })
      app.get('/next', async () => 'next')
    })
    const rest = '0\r\n\r\n' + GET('/next')
    for (const [statusLine, coding, statusCode] of [
      ['POST / HTTP/1.0', 'chunked\r\nConnection: keep-alive', 400],
      ['POST / HTTP/1.1', ',chunked', 400],
      ['POST / HTTP/1.1', 'gzip, chunked', 501]
    ] as const) {
      for (const inTwo of [false, true]) {
        await t.test(`${statusLine}, ${JSON.stringify(coding)}${inTwo ? ', the rest later' : ''}`, async (t) => {
          const wire = await connect()
          const head = `${statusLine}\r\nHost: a\r\nTransfer-Encoding: ${coding}\r\n\r\n`
          const response = await wire.request(inTwo ? head : head + rest)
          t.match(response, { statusCode, fields: { connection: 'close' } })
          if (inTwo) wire.send(rest)
          await t.rejects(wire.head(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'nothing more is answered')
        })
      }
    }
  })
}

for (const [name, start] of Object.entries(STARTERS)) {
  t.test(`${name}: versions other than HTTP/1`, async (t) => {
    const served: string[] = []
    const { connect, logged } = await start(t, (app) => {
      // A hook may use the stream before the request is refused.
      app.addHook('onRequest', async (request, reply) => {
        if (request.headers.information !== undefined) t.equal(reply.duplex.writeInformation(103, { link: '</a>' }), false)
        if (request.headers.upgrade !== undefined) reply.code(101).header('upgrade', 'x').duplex.end()
        if (request.headers.early !== undefined) reply.duplex.end('early')
      })
      app.post('/', { duplex: true }, async ({ raw }, reply) => {
        served.push(raw.httpVersion)
        reply.duplex.end('served')
      })
      app.get('/next', { duplex: true }, (_request, reply) => {
        served.push('next')
        reply.duplex.end('next')
      })
    }, { http: { insecureHTTPParser: true } })
    const head = (version: string, fields = ''): string => `POST / HTTP/${version}\r\nHost: a\r\nConnection: keep-alive\r\n${fields}\r\n`
    const refused = async (request: string): Promise<void> => {
      const wire = await connect()
      const response = await wire.request(request)
      t.match(response, { statusCode: 505, body: /FST_ERR_DUPLEX_VERSION/, fields: { connection: 'close', 'transfer-encoding': undefined } }, request)
      wire.send(GET('/next'))
      await t.rejects(wire.head(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'nothing more is answered')
    }
    await refused(head('3.7'))
    for (const version of ['0.9', '2.0']) {
      const line = logged('request completed')
      await refused(head(version))
      t.match(await line, { res: { statusCode: 505 } })
      await refused(head(version, 'Information: yes\r\n'))
      await refused(head(version, 'Transfer-Encoding: chunked\r\n'))
      const early = await (await connect()).request(head(version, 'Early: yes\r\n'))
      t.match(early, { statusCode: 200, body: 'early', fields: { connection: 'close', 'transfer-encoding': undefined } })
      await refused(`POST / HTTP/${version}\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n`)
    }
    t.strictSame(served, [])
    const wire = await connect()
    t.match(await wire.request(head('1.7')), { statusCode: 200, body: 'served', fields: { 'transfer-encoding': 'chunked' } }, 'RFC 9110 section 2.5: as the highest minor version there is')
    t.match(await wire.request(GET('/next')), { body: 'next' })
  })
}

for (const [name, start] of Object.entries(STARTERS)) {
  t.test(`${name}: Host, whatever Node lets through`, async (t) => {
    const served: string[] = []
    const { connect } = await start(t, (app) => {
      app.get('/', { duplex: true }, async (request, reply) => {
        served.push(request.headers.host ?? 'none')
        reply.duplex.end('served')
      })
      app.get('/next', { duplex: true }, (_request, reply) => { reply.duplex.end('next') })
    }, { http: { requireHostHeader: false, insecureHTTPParser: true } })

    const refused = async (fields: string, line = 'GET / HTTP/1.1'): Promise<void> => {
      const title = `${line}, ${JSON.stringify(fields)}`
      const wire = await connect()
      t.match(await wire.request(`${line}\r\n${fields}\r\n`), { statusCode: 400, body: /FST_ERR_DUPLEX_HOST/, fields: { connection: 'close' } }, title)
      wire.send(GET('/next'))
      await t.rejects(wire.head(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, title)
    }
    await refused('')
    await refused('X-Host: a\r\nPost: a\r\n')
    for (const line of ['GET / HTTP/1.1', 'GET / HTTP/1.0']) {
      await refused('Host: a\r\nHost: a\r\nConnection: keep-alive\r\n', line)
      await refused('Host: a\r\nX: y\r\nhOST: b\r\n', line)
      await refused('Host:\r\nHost: b\r\n', line)
      await refused('Host: a b\r\nConnection: keep-alive\r\n', line)
    }
    for (const host of ['a, b', 'user@a', 'a/b', 'a?', 'a#', 'http://a', 'a:b', 'a:80:80', 'a:-1', ':80', '%', '%4', '%gg', 'a\tb', 'a\\b', '"a"', '<a>', '\xe4', 'a\x01',
      '[', '[]', '[::1', '::1', '[::1]a', '[1]', '[::g]', '[127.0.0.1]', '[fe80::1%25eth0]', '[v1]', '[v.a]', '[v1.]', 'a[::1]']) {
      await refused(`Host: ${host}\r\n`)
    }
    await refused('Host:\r\n', 'GET http://a/ HTTP/1.1')
    t.strictSame(served.splice(0), [])

    const wire = await connect()
    const hosts = ['a', 'A.b-c_d~', 'example.com:80', 'a:', '127.0.0.1:8080', '[::1]', '[::ffff:1.2.3.4]:443', '[v1.a:b]', '%41', "!$&'()*+,;=", '']
    for (const host of hosts) {
      t.match(await wire.request(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`), { statusCode: 200, body: 'served' }, host)
      t.match(await wire.request(GET('/next')), { body: 'next' })
    }
    t.strictSame(served.splice(0), hosts)
    // RFC 9112 section 3.2.2: the target counts then.
    t.match(await wire.request('GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n'), { statusCode: 200 })
    t.match(await wire.request('GET / HTTP/1.0\r\n\r\n'), { statusCode: 200, body: 'served' })
    t.strictSame(served, ['b', 'none'])
  })
}

t.test('Host in memory, and the authority of HTTP/2', async (t) => {
  const setup = (app: FastifyInstance): void => {
    app.get('/', { duplex: true }, async (_request, reply) => { reply.duplex.end('served') })
  }
  const { app } = await STARTERS.tcp(t, setup)
  for (const host of ['a b', ['a', 'b']]) {
    const refused = await app.inject({ url: '/', headers: { host: host as string } })
    t.match(refused, { statusCode: 400, headers: { connection: 'close' }, body: /FST_ERR_DUPLEX_HOST/ })
    const client = await app.injectDuplex({ url: '/', headers: { host } })
    t.match(await client.response, { statusCode: 400, headers: { connection: 'close' } })
    t.match(await text(client), /FST_ERR_DUPLEX_HOST/)
  }
  t.match(await app.inject('/'), { statusCode: 200, body: 'served' })
  t.match(await app.inject('http://a/'), { statusCode: 200, body: 'served' })
  t.match(await (await app.injectDuplex('/')).response, { statusCode: 200 })
  const { ask } = await serveKind(t, KINDS.h2c, (app) => {
    app.post('/', { duplex: true }, async (request, reply) => { reply.duplex.end(request.headers.host ?? 'no Host') })
  })
  const asked = await ask('/')
  t.equal(await asked.status(), 200)
  t.equal(await asked.body(), 'no Host')
})

// Not over the fallback, where Node keeps CONNECT from being routed.
for (const name of ['tcp', 'tls', 'asynchronous constraint']) {
  t.test(`${name}: CONNECT with a target that is no host and port`, async (t) => {
    const served: string[] = []
    const { connect } = await STARTERS[name](t, (app) => {
      app.addHttpMethod('CONNECT')
      app.addHook('onRequest', async (request, reply) => {
        if (request.headers.asks === 'yes') reply.code(400).send(`not null, but ${request.authority}`)
        if (request.headers.asks === 'answers') reply.code(403).send('no')
      })
      for (const url of ['*', '/x']) {
        app.route({
          method: 'CONNECT',
          url,
          duplex: true,
          handler: async (request, reply) => {
            served.push(request.url)
            reply.duplex.end()
          }
        })
      }
      app.get('/next', async () => { served.push('next') })
    })
    for (const target of ['/x', '/', '//a:80', '/a:80', '/*', '*', 'a', 'a:', 'http://a:80']) {
      for (const fields of ['', 'Asks: yes\r\n', 'Asks: answers\r\n']) {
        const wire = await connect()
        const response = await wire.request(CONNECT(target, fields) + GET('/next'), 'CONNECT')
        t.match(response, fields.includes('answers')
          ? { statusCode: 403, body: 'no', fields: { connection: 'close' } }
          : { statusCode: 400, body: /FST_ERR_DUPLEX_AUTHORITY/, fields: { connection: 'close' } }, `${target} ${fields}`)
        await t.rejects(wire.head(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'nothing more is answered')
      }
    }
    t.strictSame(served, [])
  })
}

t.test('app.inject(): a framing that is refused', async (t) => {
  const { app } = await STARTERS.tcp(t, (app) => {
    app.post('/', { duplex: true }, async (_request, reply) => { reply.duplex.end('served') })
  })
  const response = await app.inject({ method: 'POST', url: '/', headers: { 'transfer-encoding': 'gzip, chunked' } })
  t.match(response, { statusCode: 501, headers: { connection: 'close' }, body: /FST_ERR_DUPLEX_TRANSFER_CODING/ })
})
