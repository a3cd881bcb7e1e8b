// app.injectDuplex() with items: the client speaks the formats of the server.

import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { encode, decodeMulti } from '@msgpack/msgpack'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import duplex from '../../lib/index.ts'
import type { ItemFormat } from '../../types/items.d.ts'
import { itemCodec, jsonSeq, jsonl, problemSchema, sse } from '../../lib/items/index.ts'

const Row = { type: 'object', required: ['id'], properties: { id: { type: 'integer' }, name: { type: 'string' } } } as const
const Result = { type: 'object', required: ['id', 'ok'], properties: { id: { type: 'integer' }, ok: { type: 'boolean' } } } as const

interface IdRow { id: number }

async function make (t: Test, routes: (app: FastifyInstance) => unknown): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex, { closeGrace: 0 })
  await routes(app)
  return app
}

/** Rows up, results down, one for one. */
function importRows (app: FastifyInstance): void {
  app.post<{ Receive: IdRow, Send: unknown }>('/import', {
    duplex: { receive: [jsonl(Row, { maxItemSize: 100 }), jsonSeq(Row)], send: [jsonl({ anyOf: [Result, problemSchema] }), jsonSeq(Result), sse(Result)] }
  }, async function * (request, reply) {
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  })
}

async function all<Item> (items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = []
  for await (const item of items) list.push(item)
  return list
}

t.test('a conversation in items', async (t) => {
  const app = await make(t, importRows)
  for (const receive of [jsonl(Result), sse(Result)]) {
    const client = await app.injectDuplex({ url: '/import', send: jsonl(Row), receive })
    const items = client.items[Symbol.asyncIterator]()
    t.equal(client.send({ id: 1, name: 'é' }), true)
    t.strictSame(await items.next(), { value: { id: 1, ok: true }, done: false })
    client.send({ id: 2 })
    t.strictSame(await items.next(), { value: { id: 2, ok: true }, done: false })
    t.match(await client.response, { statusCode: 200, headers: { 'content-type': receive.codec.mediaTypes[0] } })
    client.end()
    t.strictSame(await items.next(), { value: undefined, done: true })
  }
})

t.test('every format, to the end', async (t) => {
  const app = await make(t, importRows)
  for (const send of [jsonl(Row), jsonSeq(Row)]) {
    for (const receive of [jsonl(Result), jsonSeq(Result), sse(Result)]) {
      const client = await app.injectDuplex({ url: '/import', send, receive })
      for (const id of [1, 2]) client.send({ id })
      client.end()
      t.strictSame(await all(client.items), [{ id: 1, ok: true }, { id: 2, ok: true }])
    }
  }
})

t.test('batches, a loop that is left, bytes beside items', async (t) => {
  const app = await make(t, importRows)
  const client = await app.injectDuplex({ url: '/import', send: jsonl(Row), receive: jsonl(Result) })
  for (let id = 0; id < 3; id++) client.send({ id })
  for await (const item of client.items) {
    t.match(item, { ok: true })
    if ((item as IdRow).id === 1) break
  }
  t.equal(client.destroyed, false)
  client.end('{"id":3}\n\n{"id":4}')
  const batches = await all(client.items.batches())
  t.strictSame(batches.flat(), [2, 3, 4].map((id) => ({ id, ok: true })))

  const bytes = await app.injectDuplex({ method: 'POST', url: '/import', send: jsonl(Row), payload: '{"id":5}\n' })
  t.equal(await text(bytes), '{"id":5,"ok":true}\n', 'bytes down, and a payload as it is')
  t.throws(() => (bytes as unknown as { items: unknown }).items, { code: 'FST_ERR_DUPLEX_OPTION', message: /"receive"/ })
  const up = await app.injectDuplex({ method: 'POST', url: '/import', headers: { 'content-type': 'application/jsonl' }, receive: jsonl(Result) })
  t.throws(() => (up as unknown as { send (item: unknown): void }).send({}), { code: 'FST_ERR_DUPLEX_OPTION', message: /"send"/ })
  up.end('{"id":6}')
  t.strictSame(await all(up.items), [{ id: 6, ok: true }])
})

t.test('the next exchange of a connection', async (t) => {
  const app = await make(t, importRows)
  const first = await app.injectDuplex({ url: '/import', send: jsonl(Row), receive: jsonl(Result) })
  const second = first.next({ url: '/import', send: jsonSeq(Row), receive: sse(Result) })
  second.send({ id: 2 })
  second.end()
  first.send({ id: 1 })
  first.end()
  t.strictSame(await all(first.items), [{ id: 1, ok: true }])
  t.strictSame(await all(second.items), [{ id: 2, ok: true }])
  t.equal(second.socket, first.socket)
  t.throws(() => first.next({ url: '/import', receive: {} as unknown as ItemFormat }), { code: 'FST_ERR_DUPLEX_OPTION', message: /"receive"/ })
})

t.test('fields and method', async (t) => {
  const seen: unknown[] = []
  const app = await make(t, (app) => {
    app.all('/', { duplex: true }, (request, reply) => {
      const { method, headers } = request
      seen.push([method, headers.accept, headers['content-type'], reply.duplex.framing.request])
      reply.type('application/jsonl').duplex.end('1')
    })
  })
  const receive = [jsonl({}), sse({})]
  for (const options of [
    { receive }, { send: jsonSeq({}) }, { send: jsonl({}), method: 'GET' }, { send: jsonl({}), method: 'put' },
    { receive, send: jsonl({}), headers: { Accept: 'a/b', 'Content-Type': 'c/d' } }
  ]) {
    const client = await app.injectDuplex({ url: '/', ...options } as { url: string, receive: typeof receive })
    client.end()
    if (options.receive !== undefined) t.strictSame(await all(client.items), [1])
    else await text(client)
  }
  t.strictSame(seen, [
    ['GET', 'application/jsonl, application/x-ndjson, text/event-stream', undefined, 'none'],
    ['POST', undefined, 'application/json-seq', 'chunked'],
    ['GET', undefined, 'application/jsonl', 'chunked'],
    ['PUT', undefined, 'application/jsonl', 'chunked'],
    ['POST', 'a/b', 'c/d', 'chunked']
  ])
  for (const [name, value] of [['send', sse({})], ['send', [jsonl({})]], ['send', null], ['receive', []], ['receive', null], ['receive', [jsonl({}), 'jsonl']], ['receive', { schema: {}, codec: { mediaTypes: ['a/b'] } }]]) {
    await t.rejects(app.injectDuplex({ url: '/', [name as string]: value }), { code: 'FST_ERR_DUPLEX_OPTION', message: new RegExp(`"${name}"`) })
  }
})

t.test('the content-type of the response chooses', async (t) => {
  const app = await make(t, (app) => {
    app.get<{ Querystring: { type: string } }>('/', { duplex: true }, (request, reply) => {
      reply.type(request.query.type).duplex.end('\x1e{"a":\n1}\n\x1e2\n')
    })
  })
  const receive = [jsonl({}, { invalid: 'item' }), jsonSeq({}), sse({})] as const
  const get = async (type: string): Promise<unknown[]> => await all((await app.injectDuplex({ url: '/', query: { type }, receive })).items)
  t.strictSame(await get('application/json-seq'), [{ a: 1 }, 2])
  t.strictSame(await get('Application/JSON-seq; charset=utf-8'), [{ a: 1 }, 2])
  t.match(await get('application/x-ndjson'), [
    { ok: false, error: { code: 'FST_ERR_DUPLEX_ITEM', index: 0, offset: 0 } },
    { ok: false, error: { index: 1, offset: 7 } },
    { ok: false, error: { index: 2, offset: 10 } }
  ])
  t.strictSame(await get('text/event-stream'), [])
  await t.rejects(get('application/json-seq; charset=latin1'), { code: 'FST_ERR_DUPLEX_RESPONSE', statusCode: 200, message: /200 OK, content-type application\/json-seq; charset=latin1$/ })
})

t.test('answers that are no items', async (t) => {
  const app = await make(t, (app) => {
    importRows(app)
    app.get('/text', async (request, reply) => reply.code(418).type('text/plain').send('no coffee'))
    app.get('/empty', async (request, reply) => reply.code(500).send())
    app.get('/none', async (request, reply) => reply.code(204).send())
    app.get('/long', async (request, reply) => reply.code(500).type('text/plain').send('x'.repeat(100_000)))
    app.get('/as-items', async (request, reply) => reply.code(400).type('application/jsonl').send('{"title":"Bad"}\n'))
    app.get('/json', async () => ({ message: 'fine' }))
    app.get('/endless', { duplex: true }, (request, reply) => { reply.type('text/plain').duplex.write('tick') })
  })
  const send = jsonl(Row)
  const receive = jsonl(Result)
  const bad = await app.injectDuplex({ url: '/import', send, receive })
  bad.send({ name: 'no id' } as never)
  bad.end()
  const message = "Item 0, at byte 0: item must have required property 'id'"
  const error = {
    code: 'FST_ERR_DUPLEX_RESPONSE',
    statusCode: 400,
    message: `The response is not in a format of "receive": 400 Bad Request, content-type application/json; charset=utf-8: ${message}`,
    body: { statusCode: 400, code: 'FST_ERR_DUPLEX_ITEM', error: 'Bad Request', message }
  }
  await t.rejects(all(bad.items), error)
  await t.rejects(all(bad.items), error, 'again')
  await t.rejects(all(bad.items.batches()), error)

  const notFound = await app.injectDuplex({ url: '/nowhere', receive: jsonl(Result, { invalid: 'item' }) })
  await t.rejects(all(notFound.items), { statusCode: 404, message: /Route GET:\/nowhere not found$/ })
  const unsupported = await app.injectDuplex({ url: '/import', send, receive, headers: { 'content-type': 'text/csv' }, payload: 'a' })
  await t.rejects(all(unsupported.items), { code: 'FST_ERR_DUPLEX_RESPONSE', message: /415 Unsupported Media Type, .*: The content-type "text\/csv" is not supported here/ })
  const get = async (url: string): Promise<unknown[]> => all((await app.injectDuplex({ url, receive })).items)
  await t.rejects(get('/text'), { statusCode: 418, message: /418 I'm a Teapot, content-type text\/plain.*: no coffee$/, body: 'no coffee' })
  await t.rejects(get('/empty'), { statusCode: 500, message: /500 Internal Server Error, content-type \(none\)$/, body: '' })
  await t.rejects(get('/long'), { message: /500 Internal Server Error, content-type text\/plain.*: x{65536}/ })
  await t.rejects(get('/json'), { statusCode: 200, message: /200 OK, content-type application\/json/ })
  await t.rejects(get('/endless'), { code: 'FST_ERR_DUPLEX_RESPONSE', message: /200 OK/ }, 'without waiting for an end')
  t.strictSame(await get('/none'), [])
  t.strictSame(await get('/as-items'), [{ title: 'Bad' }])
})

t.test('a response that is cut off', async (t) => {
  const app = await make(t, importRows)
  const client = await app.injectDuplex({ url: '/import', send: jsonl(Row), receive: jsonl(Result) })
  client.send({ id: 1 })
  const items = client.items[Symbol.asyncIterator]()
  t.match(await items.next(), { value: { id: 1 } })
  client.end('{"id":2}\nnonsense\n{"id":3}\n')
  t.match(await items.next(), { value: { id: 2 } })
  t.match(await items.next(), { value: { status: 400, code: 'FST_ERR_DUPLEX_ITEM', index: 2, offset: 18 } })
  await t.rejects(items.next(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })

  const busy = await app.injectDuplex({ url: '/import', send: jsonl(Row), receive: jsonl(Result) })
  busy.send({ id: 1 })
  await busy.response
  busy.write('nonsense\n')
  const closed = once(busy.socket, 'close')
  for (let i = 0; i < 20_000; i++) busy.send({ id: 3 }) // more than all buffers take
  await closed
  busy.send({ id: 4 })
  const [first, last] = [[] as unknown[], [] as unknown[]]
  const reading = async (): Promise<void> => { for await (const item of busy.items) (first.length === 0 ? first : last).push(item) }
  await t.rejects(reading(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
  t.match([first, last], [[{ id: 1 }], [{ code: 'FST_ERR_DUPLEX_ITEM' }]], 'what has come before, though the client went on to send')

  const gone = await app.injectDuplex({ url: '/import', send: jsonl(Row), receive: jsonl(Result) })
  gone.destroy()
  await t.rejects(all(gone.items))
})

t.test('items that cannot be sent, and limits', async (t) => {
  const app = await make(t, importRows)
  const client = await app.injectDuplex({ url: '/import', send: jsonl({}), receive: jsonl(Result, { maxItemSize: 10 }) })
  const circle: Record<string, unknown> = {}
  circle.circle = circle
  client.send({ id: 1 })
  for (const item of [undefined, () => {}, 1n, circle]) t.throws(() => client.send(item), { code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE', index: 1 })
  client.end()
  await t.rejects(all(client.items), { code: 'FST_ERR_DUPLEX_ITEM_LIMIT', index: 0 })
  const failed = once(client, 'error')
  client.send({ id: 2 })
  t.match(await failed, [{ code: 'ERR_STREAM_WRITE_AFTER_END' }])
})

t.test('backpressure', async (t) => {
  const app = await make(t, (app) => {
    app.post<{ Receive: string }>('/', { duplex: { receive: jsonl({ type: 'string' }) } }, async (request, reply) => {
      let count = 0
      for await (const batch of reply.duplex.items.batches()) count += batch.length
      return { count }
    })
  })
  const client = await app.injectDuplex({ url: '/', send: jsonl({ type: 'string' }) })
  let count = 1
  while (client.send('x'.repeat(10_000))) count++
  t.equal(client.writableNeedDrain, true)
  await once(client, 'drain')
  client.end()
  t.strictSame(JSON.parse(await text(client)), { count })
})

t.test('a codec of the user\'s own', async (t) => {
  const msgpack = itemCodec({
    mediaTypes: ['application/x-msgpack'],
    decode (bytes) {
      const size = 4 + (bytes.length < 4 ? 0 : bytes.readUInt32BE())
      if (bytes.length < size) return size
      return { item: [...decodeMulti(bytes.subarray(4, size))][0], size }
    },
    encode (item) {
      const bytes = encode(item)
      return Buffer.concat([Buffer.from(new Uint32Array([bytes.length]).buffer).swap32(), bytes])
    }
  })
  const app = await make(t, (app) => {
    app.post('/', { duplex: { receive: msgpack(Row), send: [jsonl(Row), msgpack(Row)] } }, async (request, reply) => {
      for await (const row of reply.duplex.items) reply.duplex.send(row as never)
      reply.duplex.end()
    })
  })
  const client = await app.injectDuplex({ url: '/', send: msgpack(Row), receive: msgpack(Row) })
  client.send({ id: 1, name: 'é' })
  client.send({ id: 2 })
  client.end()
  t.strictSame(await all(client.items), [{ id: 1, name: 'é' }, { id: 2 }])
})
