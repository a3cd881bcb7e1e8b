// The option `incremental`: a response with content says so in its head (RFC 10036).

import type { ServerResponse } from 'node:http'
import http2 from 'node:http2'
import { once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import onHeaders from 'on-headers'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import duplex from '../../lib/index.ts'
import { jsonl } from '../../lib/items/index.ts'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { CONNECT, OPEN, UPGRADE, chunked, serve } from '../support/wire.ts'

const INCREMENTAL = { duplex: { incremental: true } }

/** Sends a request of HTTP/1 for which there is no other helper. */
const ask = (method: string, path: string, fields = ''): string => `${method} ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`

for (const [kind, routeOptions] of Object.entries({ raw: {}, 'asynchronous constraint': { constraints: { later: 'yes' } } })) {
  t.test(`HTTP/1.1, ${kind}`, async (t) => {
    const { connect } = await serve(t, 'tcp', (app) => {
      if (kind !== 'raw') addLaterConstraint(app)
      app.all('/', { ...routeOptions, ...INCREMENTAL }, async (request, reply) => { await pipeline(reply.duplex, reply.duplex) })
      app.post('/off', { ...routeOptions, duplex: true }, async function * () { yield 'x' })
      app.post('/own', { ...routeOptions, ...INCREMENTAL }, async function * (request, reply) {
        reply.header('Incremental', '?0')
        yield 'x'
      })
      app.post('/length', { ...routeOptions, ...INCREMENTAL }, async function * (request, reply) {
        reply.header('content-length', 1)
        yield 'x'
      })
      for (const status of [204, 304]) {
        app.post(`/${status}`, { ...routeOptions, ...INCREMENTAL }, (request, reply) => {
          reply.code(status)
          reply.duplex.end()
        })
      }
      app.post('/ordinary', { ...routeOptions, ...INCREMENTAL }, async () => 'x')
      app.post('/thrown', { ...routeOptions, ...INCREMENTAL }, async (request, reply) => {
        reply.duplex.write('x')
        throw new Error('taken back')
      })
      app.post('/items', { ...routeOptions, duplex: { incremental: true, send: jsonl({}) } }, async function * () { yield 1 })
      app.post('/wrapped', { ...routeOptions, ...INCREMENTAL }, async function * (request, reply) {
        onHeaders(reply.raw, function (this: ServerResponse) { this.setHeader('seen', String(this.getHeader('incremental'))) })
        yield 'x'
      })
    })
    const wire = await connect()
    const later = kind === 'raw' ? '' : 'Later: yes\r\n'
    const post = (path: string): string => chunked(path, 'x').replace('\r\n', `\r\n${later}`)
    for (const path of ['/', '/length', '/items', '/wrapped']) {
      const { statusCode, fields } = await wire.request(post(path))
      t.match([statusCode, fields.incremental], [200, '?1'], path)
      if (path === '/wrapped') t.equal(fields.seen, '?1', 'other code sees it')
    }
    t.equal((await wire.request(post('/own'))).fields.incremental, '?0', 'the field of the handler')
    for (const path of ['/off', '/204', '/304', '/ordinary', '/thrown']) {
      t.equal((await wire.request(post(path))).fields.incremental, undefined, path)
    }
    const head = await wire.request(ask('HEAD', '/', later))
    t.match(head, { statusCode: 200, fields: { incremental: undefined } })
    t.equal((await wire.request(post('/'))).body, 'x', 'the next request')
    t.match(await wire.request('POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n' + later + '\r\nx'), { body: 'x', fields: { incremental: '?1' } })
  })
}

t.test('a tunnel', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.get('/', INCREMENTAL, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      await pipeline(duplex, duplex)
    })
    app.route({ method: 'CONNECT', url: '*', ...INCREMENTAL, handler: async (request, { duplex }) => { await pipeline(duplex, duplex) } })
  })
  for (const request of [UPGRADE('/'), CONNECT('a:1')]) {
    const wire = await connect()
    wire.send(request)
    t.equal((await wire.head(request.slice(0, request.indexOf(' ')))).fields.incremental, undefined, request)
    wire.send('x')
    t.equal(await wire.content(), 'x')
  }
})

t.test('interim responses do not have it', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', INCREMENTAL, async function * (request, reply) {
      reply.duplex.writeInformation(103)
      yield 'x'
    })
  })
  const wire = await connect()
  wire.send(OPEN('/') + '0\r\n\r\n')
  t.match(await wire.head(), { statusCode: 103, fields: { incremental: undefined } })
  t.match(await wire.head(), { statusCode: 200, fields: { incremental: '?1' } })
})

t.test('HTTP/2', async (t) => {
  const { port } = await serve(t, 'tcp', (app) => {
    app.post('/', INCREMENTAL, async (request, reply) => { await pipeline(reply.duplex, reply.duplex) })
  }, { fastify: { http2: true } })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  t.teardown(() => session.destroy())
  const stream = session.request({ ':method': 'POST', ':path': '/' })
  stream.end('x')
  const [fields] = await once(stream, 'response')
  t.equal(fields.incremental, '?1')
  t.equal(String(Buffer.concat(await stream.toArray())), 'x')
})

t.test('injectDuplex() and inject(), with the default of register()', async (t) => {
  const app = Fastify() as FastifyInstance
  t.teardown(() => app.close())
  await app.register(duplex, { incremental: true })
  app.post('/', { duplex: true }, async function * () { yield 'x' })
  app.post('/off', { duplex: { incremental: false } }, async function * () { yield 'x' })
  for (const [url, expected] of [['/', '?1'], ['/off', undefined]] as const) {
    const client = await app.injectDuplex({ method: 'POST', url, payload: 'x' })
    t.equal((await client.response).headers.incremental, expected)
    client.resume()
    t.equal((await app.inject({ method: 'POST', url, payload: 'x' })).headers.incremental, expected)
  }
})
