// Routes with items, through the front door: which formats are chosen, what is sent and when, how a response fails, and what a
// handler can do with its items. Bad input: bad-items.test.ts. Schemas and codecs: schemas.test.ts.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import type { HttpDuplex, ItemDuplex } from '../../types/index.d.ts'
import { jsonSeq, jsonl, problemSchema, sse } from '../../lib/items/index.ts'
import { GET, OPEN, chunk, chunked, resolvers, serve } from '../support/wire.ts'
import { JSONL, WAYS, linesOf, restOf, serveWay, until } from './live.ts'

type Duplex = ItemDuplex<any, any>
type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

const duplexOf = (reply: FastifyReply): Duplex => reply.duplex as unknown as Duplex
const bytes = (text: string): Buffer[] => text === '' ? [] : [Buffer.from(text)]
const HTTP1 = ['raw', 'asynchronous constraint']

/** Adds a route that sends items. */
function addSender (app: FastifyInstance, url: string, send: unknown, handler: Handler, routeOptions: object = {}): void {
  app.route({ method: ['GET', 'HEAD', 'POST'], url, ...routeOptions, duplex: { send } as { send: ReturnType<typeof jsonl> }, handler: handler as () => void })
}

// Formats

for (const way of WAYS) {
  t.test(`the format of a request: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      const handler = async (_request: FastifyRequest, reply: FastifyReply): Promise<unknown[]> => {
        const items: unknown[] = []
        for await (const item of duplexOf(reply).items) items.push(item)
        return items
      }
      app.post('/', { ...routeOptions, duplex: { receive: [jsonl({}), jsonSeq({})] } }, handler)
      app.get('/', { ...routeOptions, duplex: { receive: jsonl({}) } }, handler)
      app.post('/next', { ...routeOptions, duplex: true }, async () => 'next')
    })
    const accepted: [string, string][] = [
      ['application/jsonl', '1\n'], ['application/x-ndjson', '1\n'], ['APPLICATION/JsonL', '1\n'], ['application/jsonl; charset=utf-8', '1\n'], ['application/jsonl;charset="UTF-8"', '1\n'],
      ['application/jsonl ; a=b;charset=us-ascii', '1\n'], ['application/jsonl; charset=utf8', '1\n'], ['application/json-seq', '\x1e1\n']
    ]
    for (const [type, body] of accepted) {
      const { status, body: answer } = await send('/', bytes(body), { 'content-type': type })
      t.equal(status, 200, type)
      t.equal(answer, '[1]', type)
    }
    for (const type of ['application/json', 'text/plain', 'application/jsonl2', 'application/jsonl; charset=latin1', 'application/jsonl; charset="utf-16"', 'application/jsonl; CHARSET = iso-8859-1', 'nonsense', '', undefined]) {
      const { status, fields, body } = await send('/', bytes('1\n'), type === undefined ? {} : { 'content-type': type })
      t.equal(status, 415, String(type))
      t.equal(fields['accept-post'], 'application/jsonl, application/x-ndjson, application/json-seq')
      t.match(JSON.parse(body), { code: 'FST_ERR_DUPLEX_MEDIA_TYPE', message: 'send application/jsonl' })
      t.equal((await send('/next', [])).body, 'next')
    }
  })

  t.test(`the format of a response: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      const one: Handler = async function * () { yield { id: 1 } }
      addSender(app, '/', [jsonl({}), jsonSeq({}), sse({})], one, routeOptions)
      addSender(app, '/sse', sse({}), one, routeOptions)
      addSender(app, '/own', [jsonl({}), sse({})], async function * (_request, reply) {
        reply.type('application/json-lines').header('cache-control', 'no-store').header('vary', 'origin')
        yield 1
      } as Handler, routeOptions)
    })
    const LINES = ['application/jsonl', '{"id":1}\n']
    const NDJSON = ['application/x-ndjson', '{"id":1}\n']
    const EVENTS = ['text/event-stream', 'data: {"id":1}\n\n']
    const SEQ = ['application/json-seq', '\x1e{"id":1}\n']
    for (const [accept, [type, body]] of [
      [undefined, LINES], [',', LINES], ['*/*', LINES], ['application/*', LINES], ['text/*', EVENTS], ['text/event-stream', EVENTS], ['application/x-ndjson', NDJSON], ['application/json-seq', SEQ],
      ['application/jsonl;q=0.1, text/event-stream;q=0.2', EVENTS], ['*/*;q=0.1, application/json-seq', SEQ], ['application/jsonl;q=0, application/x-ndjson;q=0, */*', SEQ], ['TEXT/Event-Stream', EVENTS],
      ['text/html, text/event-stream;q=0.5', EVENTS]
    ] as const) {
      const { status, fields, body: answer } = await send('/', [], accept === undefined ? {} : { accept }, 'GET')
      t.equal(status, 200, String(accept))
      t.equal(answer, body)
      t.match(fields, { 'content-type': type, vary: 'accept' })
      t.equal(fields['cache-control'], type === 'text/event-stream' ? 'no-cache' : undefined)
    }
    for (const accept of ['text/html', 'application/json', '*/*;q=0', 'nonsense']) {
      const { status, fields, body } = await send('/', [], { accept }, 'GET')
      t.equal(status, 406, accept)
      t.equal(fields.vary, 'accept')
      t.match(JSON.parse(body), { code: 'FST_ERR_DUPLEX_NOT_ACCEPTABLE', message: 'application/jsonl, application/x-ndjson, application/json-seq, text/event-stream' })
    }
    const only = await send('/sse', [], {}, 'GET')
    t.match(only.fields, { 'content-type': 'text/event-stream' })
    t.equal(only.fields.vary, undefined, 'there is no choice')
    t.match(await send('/own', [], { accept: 'text/event-stream' }, 'GET'), { fields: { 'content-type': 'application/json-lines', 'cache-control': 'no-store', vary: 'origin' }, body: 'data: 1\n\n' }, 'what the handler sets is kept')
  })
}

t.test('Vary of a hook is added to', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    app.addHook('onRequest', async (request, reply) => { reply.header('vary', request.headers['x-vary']) })
    addSender(app, '/', [jsonl({}), sse({})], async function * () {} as Handler)
  })
  for (const [before, after] of [['origin', 'origin, accept'], ['Accept', 'Accept'], ['origin,ACCEPT , x', 'origin,ACCEPT , x'], ['*', '*'], ['accept-encoding', 'accept-encoding, accept']]) {
    t.equal((await send('/', [], { 'x-vary': before }, 'GET')).fields.vary, after)
  }
})

// What a handler may send

const MANY = Array.from({ length: 1000 }, (_, id) => ({ id }))
const SENT = MANY.map((item) => `${JSON.stringify(item)}\n`).join('')

/** Handlers that send one item: the response must be the same. */
const ONES: Record<string, Handler> = {
  'a generator': async function * () { yield { id: 1 } },
  'an async iterable': async () => ({ async * [Symbol.asyncIterator] () { yield { id: 1 } } }),
  'an async iterable, without a promise': () => ({ async * [Symbol.asyncIterator] () { yield { id: 1 } } }),
  'a Readable': async () => Readable.from([{ id: 1 }]),
  'a Readable, without a promise': () => Readable.from([{ id: 1 }]),
  'a web stream': async () => new ReadableStream({ start (controller) { controller.enqueue({ id: 1 }); controller.close() } }),
  'send()': async (_request, reply) => { duplexOf(reply).send({ id: 1 }); reply.duplex.end() },
  'send(), and a return of end()': (_request, reply) => { duplexOf(reply).send({ id: 1 }); return reply.duplex.end() },
  'send(), later': async (_request, reply) => { await immediate(); duplexOf(reply).send({ id: 1 }); await immediate(); reply.duplex.end() },
  'flushHeaders(), send()': async (_request, reply) => { reply.duplex.flushHeaders(); duplexOf(reply).send({ id: 1 }); reply.duplex.end() },
  'write()': async (_request, reply) => { reply.duplex.end('{"id":1}\n') },
  'a Response': async () => new Response('{"id":1}\n', { headers: { 'content-type': 'application/jsonl' } })
}

for (const way of WAYS) {
  t.test(`ways to send: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      for (const [i, handler] of Object.values(ONES).entries()) addSender(app, `/${i}`, jsonl({}), handler, routeOptions)
      addSender(app, '/none', jsonl({}), async function * () {} as Handler, routeOptions)
      addSender(app, '/many', jsonl({}), async function * () { yield * MANY } as Handler, routeOptions)
      addSender(app, '/order', jsonl({}), async (_request, reply) => {
        const duplex = duplexOf(reply)
        duplex.send(1)
        duplex.write('2\n')
        duplex.send(3)
        duplex.send('4')
        duplex.write(Buffer.from('5\n'))
        duplex.write('6\n')
        await immediate()
        duplex.send(7)
        duplex.end('8\n')
      }, routeOptions)
      addSender(app, '/answer', jsonl({}), async () => ({ an: 'answer' }), routeOptions)
      addSender(app, '/refused', [jsonl({}), sse({})], async (_request, reply) => reply.code(403).send({ no: 'entry' }), routeOptions)
    })
    for (const [i, what] of Object.keys(ONES).entries()) {
      t.match(await send(`/${i}`, [], {}, 'GET'), { status: 200, fields: { 'content-type': 'application/jsonl' }, body: '{"id":1}\n', isCutOff: false }, what)
    }
    t.match(await send('/none', [], {}, 'GET'), { status: 200, fields: { 'content-type': 'application/jsonl' }, body: '', isCutOff: false })
    t.equal((await send('/many', [], {}, 'GET')).body, SENT)
    t.equal((await send('/order', [], {}, 'GET')).body, '1\n2\n3\n"4"\n5\n6\n7\n8\n')
    t.match(await send('/answer', [], {}, 'GET'), { status: 200, fields: { 'content-type': /^application\/json;/ }, body: '{"an":"answer"}' })
    t.match(await send('/refused', [], { accept: 'text/event-stream' }, 'GET'), { status: 403, fields: { 'content-type': /^application\/json;/ }, body: '{"no":"entry"}' })
    for (const [i, what] of Object.keys(ONES).entries()) {
      if (what === 'write()' || what === 'a Response') continue // bytes
      const head = await send(`/${i}`, [], {}, 'HEAD')
      t.match(head, { status: 200, fields: { 'content-type': 'application/jsonl' }, body: '', isCutOff: false }, `HEAD: ${what}`)
    }
    t.equal((await send('/many', [], {}, 'GET')).body, SENT)
  })
}

for (const way of HTTP1) {
  t.test(`items of one turn leave as one chunk: ${way}`, async (t) => {
    const { connect } = await serveWay(t, way, (app, routeOptions) => {
      addSender(app, '/', jsonl({}), async (_request, reply) => {
        const duplex = duplexOf(reply)
        t.equal(duplex.send(1), true)
        t.equal(duplex.send(2), true)
        duplex.write('3\n')
        await immediate()
        duplex.send(4)
        duplex.send(5)
        await immediate()
        duplex.send(6)
        duplex.end()
      }, routeOptions)
      addSender(app, '/generator', jsonl({}), async function * () { yield 1; yield 2; yield 3 } as Handler, routeOptions)
    })
    const wire = await connect()
    let received = ''
    wire.socket.on('data', (data) => { received += data.toString() })
    wire.send(GET('/'))
    await wire.response()
    t.match(received, `\r\n\r\n${chunk('1\n2\n3\n')}${chunk('4\n5\n')}${chunk('6\n')}0\r\n\r\n`)
    received = ''
    wire.send(GET('/generator'))
    await wire.response()
    t.match(received, `\r\n\r\n${chunk('1\n2\n3\n')}0\r\n\r\n`)
  })
}

for (const way of WAYS.filter((way) => !way.startsWith('inject'))) {
  t.test(`a slow client gets every item, in order: ${way}`, async (t) => {
    const COUNT = 20_000
    const TEXT = 'ä'.repeat(50)
    let refusals = 0
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      addSender(app, '/send', jsonl({}), async (_request, reply) => {
        const duplex = duplexOf(reply)
        for (let id = 0; id < COUNT; id++) {
          if (duplex.send({ id, TEXT })) continue
          refusals++
          t.equal(duplex.writableNeedDrain, true)
          await once(duplex, 'drain')
        }
        duplex.end()
      }, routeOptions)
      addSender(app, '/yield', jsonl({}), async function * () { for (let id = 0; id < COUNT; id++) yield { id, TEXT } } as Handler, routeOptions)
      addSender(app, '/careless', jsonl({}), async (_request, reply) => {
        for (let id = 0; id < COUNT; id++) duplexOf(reply).send({ id, TEXT })
        reply.duplex.end()
      }, routeOptions)
    })
    for (const path of ['/send', '/yield', '/careless']) {
      const { body, isCutOff } = await send(path, [], {}, 'GET')
      t.equal(isCutOff, false)
      t.equal(body, Array.from({ length: COUNT }, (_, id) => `${JSON.stringify({ id, TEXT })}\n`).join(''), path)
    }
    t.ok(refusals > 1)
  })
}

// Failures behind the first byte

const OK = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'], additionalProperties: false }
const RECORD = { type: 'about:blank', title: 'Internal Server Error', status: 500, code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE', index: 1 }
const oops = (): Error => Object.assign(new Error('oops'), { code: 'OOPS' })

/** Formats, and what a client gets of a response whose second item is bad. The first one is `{ ok: true }`. */
const PROBLEMS: Record<string, { format: unknown, last: unknown }> = {
  'a record, in a schema that allows all': { format: jsonl({}), last: RECORD },
  'a record, in anyOf': { format: jsonl({ anyOf: [OK, problemSchema] }), last: RECORD },
  'no record: the schema does not allow it': { format: jsonl(OK), last: undefined },
  'no record: the schema would lose members of it': { format: jsonl({ type: 'object', properties: { ok: { type: 'boolean' }, title: { type: 'string' } } }), last: undefined },
  'no record: problem is false': { format: jsonl({}, { problem: false }), last: undefined },
  'the item of a function': { format: jsonl(OK, { problem: () => ({ ok: false }) }), last: { ok: false } },
  'a function that gives nothing': { format: jsonl({}, { problem: () => undefined }), last: undefined },
  'a function that gives null': { format: jsonl({}, { problem: () => null }), last: undefined },
  'a function that throws': { format: jsonl({}, { problem: () => { throw new Error('of the function') } }), last: undefined },
  'a function whose item does not fit': { format: jsonl(OK, { problem: () => ({ ok: 'no' }) }), last: undefined },
  'a function whose item cannot be serialized': { format: jsonl({}, { problem: () => 1n }), last: undefined }
}

for (const way of WAYS) {
  t.test(`the last item of a response that fails: ${way}`, async (t) => {
    const { send, logged } = await serveWay(t, way, (app, routeOptions) => {
      for (const [i, { format }] of Object.values(PROBLEMS).entries()) {
        addSender(app, `/${i}`, format, async function * (_request, reply) {
          yield { ok: true }
          await immediate()
          duplexOf(reply).send(undefined)
        } as Handler, routeOptions)
      }
      addSender(app, '/other', jsonl({}, { problem: ({ message }) => ({ message }) }), async (_request, reply) => {
        duplexOf(reply).send({ ok: true })
        await immediate()
        throw oops()
      }, routeOptions)
      addSender(app, '/turn', jsonl({}, { problem: ({ message }) => ({ message }) }), async (_request, reply) => {
        reply.duplex.flushHeaders()
        duplexOf(reply).send({ ok: true })
        throw oops()
      }, routeOptions)
      addSender(app, '/foreign', jsonl({}), async (_request, reply) => {
        duplexOf(reply).send({ ok: true })
        await immediate()
        throw oops()
      }, routeOptions)
      addSender(app, '/bytes', jsonl({}, { problem: ({ message }) => ({ message }) }), async (_request, reply) => {
        reply.duplex.write('{"ok":')
        await immediate()
        throw oops()
      }, routeOptions)
      addSender(app, '/length', jsonl({}, { problem: ({ message }) => ({ message }) }), async (_request, reply) => {
        reply.header('content-length', 20)
        duplexOf(reply).send({ ok: true })
        await immediate()
        throw oops()
      }, routeOptions)
    })
    for (const [i, [what, { last }]] of Object.entries(PROBLEMS).entries()) {
      const errored = logged('request errored')
      const { status, body, isCutOff } = await send(`/${i}`, [], {}, 'GET')
      t.equal(status, 200)
      t.match(linesOf(body), [{ ok: true }, ...(last === undefined ? [] : [last])], what)
      t.equal(linesOf(body).length, last === undefined ? 1 : 2, what)
      t.equal(isCutOff, true, what)
      t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE' } }, `${what}: the first error counts`)
    }
    for (const [path, body] of [['/other', '{"ok":true}\n{"message":"oops"}\n'], ['/turn', '{"ok":true}\n{"message":"oops"}\n'], ['/foreign', '{"ok":true}\n'], ['/bytes', '{"ok":'], ['/length', '{"ok":true}\n']]) {
      const errored = logged('request errored')
      // inject() returns a stream that has failed already.
      t.match(await send(path, [], {}, 'GET'), { status: 200, body: way === 'inject' && path === '/turn' ? '' : body, isCutOff: true }, path)
      t.match(await errored, { err: { code: 'OOPS' } }, path)
    }
  })

  t.test(`items that cannot be sent: ${way}`, async (t) => {
    const BAD: Record<string, unknown> = { undefined, 'a function': () => {}, 'a symbol': Symbol('s'), 'a bigint': 1n, 'a circle': Object.assign({}, { get circle () { return this } }), bytes: Buffer.from('x'), toJSON: { toJSON () { throw oops() } } }
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      app.setErrorHandler((error: Error & { code: string, index: number, statusCode: number }, _request, reply) => reply.code(error.statusCode).send({ code: error.code, index: error.index }))
      for (const [i, item] of Object.values(BAD).entries()) {
        addSender(app, `/${i}/now`, [jsonl({}), sse({})], async function * () { yield 1; yield item } as Handler, routeOptions)
        addSender(app, `/${i}/later`, [jsonl({}), sse({})], async function * () { yield 1; await immediate(); yield item; yield 2 } as Handler, routeOptions)
        addSender(app, `/${i}/caught`, [jsonl({}), sse({})], async (_request, reply) => {
          const duplex = duplexOf(reply)
          duplex.send(1)
          t.throws(() => duplex.send(item), { code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE', index: 1 })
          duplex.send(2)
          duplex.end()
        }, routeOptions)
      }
    })
    for (const [i, what] of Object.keys(BAD).entries()) {
      for (const accept of ['application/jsonl', 'text/event-stream']) {
        t.match(await send(`/${i}/now`, [], { accept }, 'GET'), { status: 500, fields: { 'content-type': /^application\/json;/ }, body: '{"code":"FST_ERR_DUPLEX_ITEM_SERIALIZE","index":1}', isCutOff: false }, what)
        const later = await send(`/${i}/later`, [], { accept }, 'GET')
        t.match(later, { status: 200, body: accept === 'application/jsonl' ? /^1\n{.*"code":"FST_ERR_DUPLEX_ITEM_SERIALIZE","index":1}\n$/ : /^data: 1\n\ndata: {.*}\n\n$/, isCutOff: true }, what)
        t.match(await send(`/${i}/caught`, [], { accept }, 'GET'), { status: 200, body: accept === 'application/jsonl' ? '1\n2\n' : 'data: 1\n\ndata: 2\n\n', isCutOff: false }, what)
      }
    }
  })
}

for (const way of HTTP1) {
  t.test(`the last item arrives, however much of the request is unread: ${way}`, async (t) => {
    const { connect } = await serveWay(t, way, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { receive: jsonl({ type: 'integer' }), send: jsonl({}) } }, async function * (_request, reply) {
        reply.duplex.flushHeaders()
        for await (const item of duplexOf(reply).items) yield item
      })
    })
    const wire = await connect()
    wire.send(`POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\nContent-Length: ${64 * 1024 * 1024}\r\n\r\n`)
    await wire.head()
    wire.socket.write(`1\n"x"\n${'2\n'.repeat(1024 * 1024)}`)
    const { body, isCutOff } = await restOf(wire)
    t.match(linesOf(body), [1, { code: 'FST_ERR_DUPLEX_ITEM', index: 1, offset: 2 }])
    t.equal(isCutOff, true)
    await wire.ended
  })

  t.test(`the last item of a response over HTTP/1.0: ${way}`, async (t) => {
    const { connect } = await serveWay(t, way, (app, routeOptions) => {
      addSender(app, '/', jsonl({}, { problem: ({ message }) => ({ message }) }), async (_request, reply) => {
        duplexOf(reply).send(1)
        await immediate()
        throw oops()
      }, routeOptions)
    })
    const wire = await connect()
    let received = ''
    let error: unknown
    wire.socket.on('data', (data) => { received += data.toString() }).on('error', (failure) => { error = failure })
    wire.send('GET / HTTP/1.0\r\n\r\n')
    await wire.ended
    t.match(received, '\r\n\r\n1\n{"message":"oops"}\n')
    // Below Node 24, a client takes a reset for an end.
    if (Number(process.versions.node.split('.')[0]) > 22) t.match(error, { code: 'ECONNRESET' }, 'an end would look as if it were complete')
  })
}

// Reading

/** What a handler reads, for a body of the items 0 to 9. */
const READERS: Record<string, { read: (duplex: Duplex, reply: FastifyReply) => Promise<unknown>, seen: unknown }> = {
  'break, and a second loop': {
    async read ({ items }) {
      const first: unknown[] = []
      const second: unknown[] = []
      for await (const item of items) if (first.push(item) === 3) break
      for await (const item of items) second.push(item)
      return [first, second]
    },
    seen: [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]
  },
  'break at the last item, and a second loop': {
    async read ({ items }) {
      for await (const item of items) if (item === 9) break
      const second: unknown[] = []
      for await (const item of items) second.push(item)
      for await (const item of items) second.push(item)
      return second
    },
    seen: []
  },
  'a loop that throws, and a second one': {
    async read ({ items }) {
      const first: unknown[] = []
      try {
        for await (const item of items) if (first.push(item) === 2) throw oops()
      } catch {}
      for await (const item of items) first.push(item)
      return first
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  },
  'batches()': {
    async read ({ items }) {
      const seen: unknown[] = []
      for await (const batch of items.batches()) {
        t.ok(batch.length > 0)
        seen.push(...batch)
      }
      return seen
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  },
  'batches(), left, and single items': {
    async read ({ items }) {
      const seen: unknown[] = []
      for await (const batch of items.batches()) if (seen.push(...batch) > 2) break
      for await (const item of items) seen.push(item)
      return seen
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  },
  'single items, and batches()': {
    async read ({ items }) {
      const seen: unknown[] = []
      for await (const item of items) if (seen.push(item) === 5) break
      for await (const batch of items.batches()) seen.push(...batch)
      return seen
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  },
  'calls of next() that do not wait': {
    async read ({ items }) {
      const iterator = items[Symbol.asyncIterator]()
      const results = await Promise.all(Array.from({ length: 12 }, () => iterator.next()))
      return results.map(({ value, done }) => done === true ? 'done' : value)
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 'done', 'done']
  },
  'setEncoding()': {
    async read (duplex) {
      duplex.setEncoding('utf8')
      const seen: unknown[] = []
      for await (const item of duplex.items) seen.push(item)
      return seen
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  },
  'Readable.from()': {
    async read ({ items }) {
      return await Readable.from(items).toArray()
    },
    seen: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  },
  'an early answer': {
    async read ({ items }) {
      for await (const item of items) if (item === 0) return item
    },
    seen: 0
  },
  'an answer without a look': { read: async () => 'early', seen: 'early' }
}

for (const way of WAYS) {
  t.test(`ways to read: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      for (const [i, { read }] of Object.values(READERS).entries()) {
        app.post(`/${i}`, { ...routeOptions, duplex: { receive: jsonl({}) } }, async (_request, reply) => ({ seen: await read(duplexOf(reply), reply) }))
      }
    })
    for (const [i, [what, { seen }]] of Object.entries(READERS).entries()) {
      const body = Buffer.from('0\n1\n2\n3\n4\n5\n6\n7\n8\n9')
      for (const chunks of [[body], Array.from(body, (byte) => Buffer.of(byte)), [body.subarray(0, 7), body.subarray(7)]]) {
        const { status, body: answer } = await send(`/${i}`, chunks, JSONL)
        t.equal(status, 200, what)
        t.strictSame(JSON.parse(answer), { seen }, what)
      }
    }
  })
}

for (const way of HTTP1) {
  t.test(`items as they come: ${way}`, async (t) => {
    const over = resolvers()
    let duplex!: Duplex
    const { connect } = await serveWay(t, way, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { receive: jsonl({}), send: jsonl({}) } }, async function * (_request, reply) {
        duplex = duplexOf(reply)
        duplex.flushHeaders()
        for await (const item of duplex.items) yield item
        over.resolve()
      })
      app.get('/next', { ...routeOptions, duplex: true }, async () => 'next')
    })
    const wire = await connect()
    const open = OPEN('/').replace('\r\n', '\r\nContent-Type: application/jsonl\r\n')
    wire.send(open)
    await wire.head()
    wire.send(chunk('{"id":'))
    await until(() => duplex.bytesRead === 6)
    wire.send(chunk('1}\n{"i'))
    t.equal(await wire.content(), '{"id":1}\n')
    wire.send(chunk('d":2}\n{"id":3}\n{"id":'))
    t.equal(await wire.content(18), '{"id":2}\n{"id":3}\n')
    duplex.stopReading()
    await over.promise
    t.equal(await wire.body(), '', 'half an item is none')
    wire.send(`${chunk('4}\n')}0\r\n\r\n`)
    t.match(await wire.request(GET('/next')), { statusCode: 200, body: 'next' })
  })

  t.test(`a client that leaves: ${way}`, async (t) => {
    const left = resolvers<unknown[]>()
    const over = resolvers()
    const { connect } = await serveWay(t, way, (app, routeOptions) => {
      app.addHook('onResponse', async () => { over.resolve() })
      app.post('/', { ...routeOptions, duplex: { receive: jsonl({}), send: jsonl({}, { problem: () => t.fail('nobody reads it') }) } }, async (_request, reply) => {
        const duplex = duplexOf(reply)
        duplex.flushHeaders()
        const { items } = duplex
        const iterator = items[Symbol.asyncIterator]()
        const results = await Promise.allSettled([iterator.next(), iterator.next(), iterator.next()])
        left.resolve(results.map((result) => result.status === 'fulfilled' ? result.value.value : result.reason.code))
        duplex.send('never')
        for await (const item of items) t.fail(`there is none: ${item}`)
      })
    })
    const wire = await connect()
    wire.send(OPEN('/').replace('\r\n', '\r\nContent-Type: application/jsonl\r\n'))
    await wire.head()
    wire.send(chunk('1\n2'))
    wire.socket.resetAndDestroy()
    // Below Node 22, a reset is taken for an end.
    const code = /^FST_ERR_DUPLEX_(ABORTED|TRUNCATED)$/
    t.match((await left.promise).slice(1), [code, code])
    await over.promise
  })

  t.test(`an app that closes: ${way}`, async (t) => {
    const { app, connect } = await serveWay(t, way, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { receive: jsonl({}), send: jsonl({}) } }, async function * (request, reply) {
        const duplex = duplexOf(reply)
        duplex.flushHeaders()
        duplex.on('shutdown', () => { duplex.stopReading() })
        for await (const item of duplex.items) yield item
        yield { last: 'words' }
      })
    }, { closeGrace: 10_000 })
    const wire = await connect()
    wire.send(OPEN('/').replace('\r\n', '\r\nContent-Type: application/jsonl\r\n'))
    await wire.head()
    wire.send(chunk('1\n'))
    t.equal(await wire.content(), '1\n')
    const closed = app.close()
    t.equal(await wire.body(), '{"last":"words"}\n')
    wire.socket.end()
    await closed
  })
}

t.test('behind the end of an exchange', async (t) => {
  const over = resolvers<Duplex>()
  const plain = resolvers<HttpDuplex>()
  const seen = resolvers()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { receive: jsonl({}), send: jsonl({}) } }, async (_request, reply) => { over.resolve(duplexOf(reply)); reply.duplex.end('end') })
    app.post('/iterable', { duplex: { receive: jsonl({}), send: jsonl({}) } }, async (_request, reply) => {
      const { duplex } = reply
      duplex.end('end')
      await once(duplex.resume(), 'close')
      return { async * [Symbol.asyncIterator] () { yield 1 }, return: seen.resolve() }
    })
    app.post('/plain', { duplex: true }, async (_request, reply) => { plain.resolve(reply.duplex); reply.duplex.end('end') })
  })
  const wire = await connect()
  t.equal((await wire.request(chunked('/', '1\n').replace('\r\n', '\r\nContent-Type: application/jsonl\r\n'))).body, 'end')
  const duplex = await over.promise
  await until(() => duplex.closed)
  await t.rejects(Promise.resolve(duplex.items[Symbol.asyncIterator]().next()), { code: 'ERR_STREAM_PREMATURE_CLOSE' }, 'what was dropped is no end')
  t.equal(duplex.send(1), false)
  t.equal((await wire.request(chunked('/iterable', '1\n').replace('\r\n', '\r\nContent-Type: application/jsonl\r\n'))).body, 'end')
  await seen.promise
  t.equal((await wire.request(chunked('/plain', '1\n'))).body, 'end')
  const other = await plain.promise as unknown as Duplex
  await until(() => other.closed)
  t.throws(() => other.items, { code: 'FST_ERR_DUPLEX_NO_ITEMS' })
  t.throws(() => other.send(1), { code: 'FST_ERR_DUPLEX_NO_ITEMS' })
})

t.test('a route that declares no items', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    app.post('/items', { duplex: { send: jsonl({}) } }, async (_request, reply) => duplexOf(reply).items)
    app.post('/send', { duplex: { receive: jsonl({}) } }, async (_request, reply) => duplexOf(reply).send(1))
    app.post('/neither', { duplex: true }, async (_request, reply) => duplexOf(reply).items)
  })
  for (const [path, what] of [['/items', 'receive'], ['/send', 'send'], ['/neither', 'receive']]) {
    const { status, body } = await send(path, bytes('1\n'), JSONL)
    t.equal(status, 500)
    t.match(JSON.parse(body), { code: 'FST_ERR_DUPLEX_NO_ITEMS', message: `no items to ${what}: add a format, as in "duplex: { ${what}: jsonl(schema) }"` })
  }
})

t.test('items of a detached connection', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { receive: jsonl({}), send: jsonl({}) } }, async (_request, reply) => {
      const { socket } = reply.duplex.detach()
      t.throws(() => duplexOf(reply).send(1), { code: 'FST_ERR_DUPLEX_DETACHED' })
      await t.rejects(Promise.resolve(duplexOf(reply).items[Symbol.asyncIterator]().next()), { code: 'FST_ERR_DUPLEX_DETACHED' })
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  t.match(await (await connect()).request('POST / HTTP/1.1\r\nHost: a\r\n\r\n'), { body: 'ok' })
})

t.test('send(), where the head cannot be sent', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    addSender(app, '/', jsonl({}), async (_request, reply) => {
      reply.header('transfer-encoding', 'chunked')
      t.equal(duplexOf(reply).send(1), false)
      t.equal(duplexOf(reply).send(2), false)
    })
  })
  t.match(await send('/', [], {}, 'GET'), { status: 500, body: /FST_ERR_DUPLEX_OWN_FIELD/ })
})
