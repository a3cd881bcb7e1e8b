// Each symptom of docs/troubleshooting.md, reproduced once.

import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { setImmediate as immediate } from 'node:timers/promises'
import cookie from '@fastify/cookie'
import t, { type Test } from 'tap'
import { jsonl } from '../../lib/items/index.ts'
import { CUT_OFF, OPEN, chunk, chunked, resolvers, serve } from '../support/wire.ts'
import { read } from './pages.ts'
import { make } from './snippets.ts'

const POST = { method: 'POST', url: '/' } as const

const symptoms: Record<string, (t: Test) => Promise<void>> = {
  async '415 Unsupported Media Type' (t) {
    const app = await make(t)
    app.post('/ordinary', async () => 'never')
    app.post('/bytes', { duplex: true }, async (_request, reply) => text(reply.duplex))
    app.post('/items', { duplex: { receive: jsonl({}) } }, async () => 'never')
    const headers = { 'content-type': 'application/x-own' }
    t.match((await app.inject({ ...POST, url: '/ordinary', headers, payload: 'a' })).json(), { statusCode: 415, code: 'FST_ERR_CTP_INVALID_MEDIA_TYPE' })
    t.match(await app.inject({ ...POST, url: '/bytes', headers, payload: 'a' }), { statusCode: 200, payload: 'a' })
    const response = await app.inject({ ...POST, url: '/items', headers, payload: 'a' })
    t.match(response.json(), { statusCode: 415, code: 'FST_ERR_DUPLEX_MEDIA_TYPE' })
    t.equal(response.headers['accept-post'], 'application/jsonl, application/x-ndjson')
  },

  async 'The client hangs' (t) {
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/forgotten', { duplex: { idleTimeout: 50 } }, (_request, reply) => { reply.duplex.resume() })
    })
    const wire = await connect()
    const { statusCode, body } = await wire.request(chunked('/forgotten', 'a'))
    t.equal(statusCode, 500)
    t.match(JSON.parse(body), { code: 'FST_ERR_DUPLEX_NOT_ENDED', message: /reply\.duplex\.end\(\)/ })
  },

  async 'Nothing arrives before the request is complete' (t) {
    const app = await make(t)
    const order: string[] = []
    app.post('/all', { duplex: true }, async function * (_request, reply) {
      const all = await text(reply.duplex)
      order.push('complete')
      yield all
    })
    app.post('/each', { duplex: true }, async function * (_request, reply) { yield * reply.duplex })
    const client = await app.injectDuplex({ ...POST, url: '/all' })
    client.on('data', () => order.push('arrived'))
    client.write('a')
    client.end('b')
    await once(client, 'end')
    t.strictSame(order, ['complete', 'arrived'])
    const live = await app.injectDuplex({ ...POST, url: '/each' })
    live.write('a')
    t.equal(String((await once(live, 'data'))[0]), 'a', 'before the end of the request')
    live.end()
  },

  async 'Empty reply from server' (t) {
    const { connect, logged } = await serve(t, 'tcp', (app) => {
      app.post('/hijacked', { duplex: true }, async (_request, reply) => {
        reply.hijack()
        reply.duplex.end('never')
      })
      app.post('/destroyed', { duplex: true }, async (_request, reply) => { reply.duplex.socket.destroy() })
    })
    for (const [path, code] of [['/hijacked', 'FST_ERR_DUPLEX_HIJACKED'], ['/destroyed', 'FST_ERR_DUPLEX_DESTROYED']]) {
      const wire = await connect()
      const line = logged('request errored')
      wire.send(OPEN(path))
      await wire.ended
      t.equal(wire.pending, 0, path)
      t.equal((await line).err?.code, code)
    }
  },

  async 'The response ends early' (t) {
    const { connect, logged } = await serve(t, 'tcp', (app) => {
      app.post('/throws', { duplex: true }, async function * () {
        yield 'begun'
        await immediate()
        throw new Error('too late')
      })
      app.post('/item', { duplex: { receive: jsonl({ type: 'object' }), send: jsonl({}) } }, async function * (_request, reply) { yield * reply.duplex.items })
      app.post('/length', { duplex: true }, async function * (_request, reply) {
        reply.header('content-length', 100)
        yield 'begun'
        await immediate()
      })
    })
    for (const [request, more, message] of [
      [OPEN('/throws'), '', 'too late'],
      [OPEN('/item').replace('Host: a', 'Host: a\r\nContent-Type: application/jsonl') + chunk('{}\n'), chunk('1\n'), 'Item 1, at byte 3: item must be object'],
      [OPEN('/length'), '', 'The body has fewer bytes than its content-length says']
    ]) {
      const wire = await connect()
      const line = logged('request errored')
      wire.send(request)
      await wire.head()
      wire.send(more)
      await t.rejects(wire.body(), CUT_OFF)
      t.match(await line, { err: { message } })
    }
  },

  async '408 Request Timeout' (t) {
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: { idleTimeout: 50 } }, async (_request, reply) => text(reply.duplex))
      app.post('/begun', { duplex: { idleTimeout: 50 } }, async function * (_request, reply) {
        yield 'begun'
        yield * reply.duplex
      })
      app.post('/old', { duplex: { maxAge: 50, closeGrace: 10 } }, async (_request, reply) => text(reply.duplex))
      app.post('/heartbeat', { duplex: { idleTimeout: 50, send: jsonl({}, { heartbeat: 10 }) } }, async (_request, reply) => {
        reply.duplex.flushHeaders()
        await text(reply.duplex)
        reply.duplex.end()
      })
    })
    const { statusCode, body } = await (await connect()).request(OPEN('/'))
    t.equal(statusCode, 408)
    t.match(JSON.parse(body), { code: 'FST_ERR_DUPLEX_IDLE' })
    t.match(await (await connect()).request(OPEN('/old')), { statusCode: 408, body: /FST_ERR_DUPLEX_AGE/ })
    await t.rejects((await connect()).request(OPEN('/begun')), CUT_OFF)
    const wire = await connect()
    wire.send(OPEN('/heartbeat'))
    await wire.head()
    t.match(await wire.content(20), /^\n+$/, 'for longer than idleTimeout')
    wire.send('0\r\n\r\n')
    await wire.body()
  },

  async '"request errored" in the log' (t) {
    const steps = resolvers()
    const { app, connect, logged } = await serve(t, 'tcp', (app) => {
      const route = (path: string, handler: (reply: { duplex: NodeJS.ReadableStream & NodeJS.WritableStream & { destroy (): void }, raw: { end (): void } }) => unknown, options: object = {}): void => {
        app.post(path, { duplex: options }, async (_request, reply) => {
          reply.duplex.write('begun')
          await once(reply.duplex, 'data')
          return handler(reply)
        })
      }
      route('/thrown', () => { throw new Error('oops') })
      route('/too-long', ({ duplex }) => text(duplex), { bodyLimit: 4 })
      route('/idle', ({ duplex }) => text(duplex), { idleTimeout: 50 })
      route('/old', ({ duplex }) => text(duplex), { maxAge: 50, closeGrace: 10 })
      route('/value', () => 'too late')
      route('/destroyed', ({ duplex }) => { duplex.destroy() })
      route('/raw-end', ({ raw }) => { raw.end() })
      route('/closing', ({ duplex }) => {
        steps.resolve()
        return text(duplex)
      })
    })
    const seen: (string | undefined)[] = []
    for (const [path, more] of [['/thrown', ''], ['/too-long', chunk('more')], ['/idle', ''], ['/old', ''], ['/value', ''], ['/destroyed', ''], ['/raw-end', ''], ['/closing', '']] as const) {
      const wire = await connect()
      const line = logged('request errored')
      wire.send(OPEN(path))
      await wire.head()
      wire.send(chunk('a') + more)
      let closed: Promise<void> | undefined
      if (path === '/closing') {
        await steps.promise
        closed = app.close()
      }
      seen.push((await line).err?.code)
      await wire.ended
      await closed
    }
    t.strictSame(seen, [undefined, 'FST_ERR_DUPLEX_BODY_LIMIT', 'FST_ERR_DUPLEX_IDLE', 'FST_ERR_DUPLEX_AGE', 'FST_ERR_DUPLEX_SENT_LATE', 'FST_ERR_DUPLEX_DESTROYED', 'FST_ERR_DUPLEX_DESTROYED', 'FST_ERR_DUPLEX_CLOSING'])
  },

  async 'The connection is reset at shutdown' (t) {
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.post('/deaf', { duplex: { closeGrace: 10 } }, async function * (_request, reply) {
        yield 'begun'
        yield * reply.duplex
      })
      app.post('/polite', { duplex: { closeGrace: 60_000 } }, async function * (_request, reply) {
        reply.duplex.once('shutdown', () => reply.duplex.stopReading())
        yield 'begun '
        yield * reply.duplex
        yield 'bye'
      })
    })
    const [deaf, polite] = [await connect(), await connect()]
    deaf.send(OPEN('/deaf'))
    polite.send(OPEN('/polite'))
    await deaf.head()
    await polite.head()
    const closed = app.close()
    t.equal(await polite.body(), 'begun bye')
    polite.socket.end()
    await t.rejects(deaf.body(), CUT_OFF)
    await closed
  },

  async '503 Service Unavailable' (t) {
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: { maxExchanges: 1 } }, async (_request, reply) => text(reply.duplex.on('shutdown', () => {})))
    })
    const first = await connect()
    const begun = once(app.server, 'request')
    first.send(OPEN('/'))
    await begun
    const response = await (await connect()).request(OPEN('/'))
    t.match(response, { statusCode: 503, fields: { 'retry-after': '1' } })
    t.match(JSON.parse(response.body), { code: 'FST_ERR_DUPLEX_TOO_MANY' })
    const closed = app.close()
    const last = await first.response()
    t.equal(last.statusCode, 503)
    t.match(JSON.parse(last.body), { code: 'FST_ERR_DUPLEX_CLOSING' })
    await closed
  },

  async '`request.body` is undefined' (t) {
    const app = await make(t)
    app.post('/', { duplex: true }, async (request, reply) => `${request.body} ${await text(reply.duplex)}`)
    t.equal((await app.inject({ ...POST, headers: { 'content-type': 'application/json' }, payload: '{}' })).payload, 'undefined {}')
  },

  async 'A cookie or a field of another plugin is missing' (t) {
    const app = await make(t)
    await app.register(cookie)
    app.post('/set', { duplex: true }, async function * (_request, reply) {
      reply.setCookie('a', '1')
      yield 'x'
    })
    app.post('/by-hand', { duplex: true }, async function * (_request, reply) {
      reply.header('set-cookie', app.serializeCookie('a', '1', {}))
      yield 'x'
    })
    t.equal((await app.inject({ ...POST, url: '/set' })).headers['set-cookie'], undefined)
    t.equal((await app.inject({ ...POST, url: '/by-hand' })).headers['set-cookie'], 'a=1')
  },

  async 'Broken characters' (t) {
    const app = await make(t)
    const upper = async function * (stream: AsyncIterable<unknown>): AsyncGenerator<string> {
      for await (const chunk of stream) yield String(chunk).toUpperCase()
    }
    app.post('/cut', { duplex: true }, (_request, reply) => upper(reply.duplex))
    app.post('/whole', { duplex: true }, (_request, reply) => upper(reply.duplex.setEncoding('utf8')))
    app.post('/decoder', { duplex: true }, async function * (_request, reply) {
      const decoder = new TextDecoder()
      for await (const chunk of reply.duplex) yield decoder.decode(chunk, { stream: true }).toUpperCase()
    })
    for (const [url, expected] of [['/cut', 'X\ufffd\ufffd'], ['/whole', 'XÉ'], ['/decoder', 'XÉ']]) {
      const client = await app.injectDuplex({ ...POST, url })
      client.write(Buffer.from('xé').subarray(0, 2))
      const received = [String((await once(client, 'data'))[0])]
      client.on('data', (chunk) => { received.push(String(chunk)) })
      client.end(Buffer.from('é').subarray(1))
      await once(client, 'end')
      t.equal(received.join(''), expected, url)
    }
  },

  async 'Memory grows' (t) {
    const buffered = resolvers<number>()
    const { app } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: { highWaterMark: 1024 } }, async (_request, reply) => {
        reply.duplex.flushHeaders()
        for (let i = 0; i < 1000; i++) reply.duplex.write(Buffer.alloc(1024))
        buffered.resolve(reply.duplex.writableLength)
        reply.duplex.end()
      })
    })
    const client = await app.injectDuplex(POST)
    t.ok(await buffered.promise > 900 * 1024, 'far more than highWaterMark')
    client.destroy()
  }
}

t.test('each symptom has a test', async (t) => {
  const headings = [...read('docs/troubleshooting.md').matchAll(/^## (.*)$/gm)].map(([, heading]) => heading)
  t.strictSame(headings, Object.keys(symptoms).sort((a, b) => headings.indexOf(a) - headings.indexOf(b)))
})

for (const [symptom, test] of Object.entries(symptoms)) t.test(symptom, test)
