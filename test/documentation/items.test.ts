import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import * as items from '../../lib/items/index.ts'
import { JSON_LINES, make, run, testSnippets } from './snippets.ts'

testSnippets('docs/items.md', [
  ["import { jsonl, problemSchema, sse } from 'fastify-duplex/items'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    const request = { method: 'POST', url: '/rows', headers: JSON_LINES } as const
    t.match(await app.inject({ ...request, payload: '{"id":1}\n{"id":2}\n' }), { statusCode: 200, payload: '{"id":1,"ok":true}\n{"id":2,"ok":true}\n' })
    t.match(await app.inject({ ...request, headers: { ...JSON_LINES, accept: 'text/event-stream' }, payload: '{"id":1}' }), {
      headers: { 'content-type': 'text/event-stream', vary: 'accept', 'cache-control': 'no-cache' },
      payload: 'data: {"id":1,"ok":true}\n\n'
    })
    t.match(await app.inject({ ...request, headers: {}, payload: '{"id":1}' }), { statusCode: 415, headers: { 'accept-post': 'application/jsonl, application/x-ndjson' } })
    t.match(await app.inject({ ...request, headers: { ...JSON_LINES, accept: 'text/html' }, payload: '{"id":1}' }), { statusCode: 406 })
    t.match((await app.inject({ ...request, payload: '{"id":"x"}' })).json(), { statusCode: 400, code: 'FST_ERR_DUPLEX_ITEM' })
    t.match((await app.inject({ ...request, payload: `{"id":${' '.repeat(65_536)}1}` })).json(), { statusCode: 413, code: 'FST_ERR_DUPLEX_ITEM_LIMIT' })
    const client = await app.injectDuplex(request)
    const received: unknown[] = []
    client.on('data', (line) => { received.push(JSON.parse(line)) }).on('error', () => {})
    client.write('{"id":1}\n')
    await once(client, 'data')
    client.write('{}\n')
    await new Promise((resolve) => client.once('close', resolve))
    t.match(client.errored, { code: 'FST_ERR_DUPLEX_TRUNCATED' })
    t.strictSame(received, [{ id: 1, ok: true }, {
      type: 'about:blank',
      title: 'Bad Request',
      status: 400,
      detail: "Item 1, at byte 9: item must have required property 'id'",
      code: 'FST_ERR_DUPLEX_ITEM',
      index: 1,
      offset: 9
    }])
  }],
  ["app.post('/load'", async (code, t) => {
    const app = await make(t)
    const inserted: unknown[] = []
    await run(code, { app, once, jsonl: items.jsonl, row: {}, result: {}, insert: async (rows: unknown[]) => { inserted.push(...rows) } })
    const rows = Array.from({ length: 5000 }, (_, id) => ({ id }))
    const { payload } = await app.inject({ method: 'POST', url: '/load', headers: JSON_LINES, payload: rows.map((row) => JSON.stringify(row)).join('\n') })
    t.strictSame(inserted, rows)
    t.equal(payload, rows.map(({ id }) => `{"id":${id},"ok":true}\n`).join(''))
  }],
  ["import { jsonl } from 'fastify-duplex/items'", async (code, t) => {
    const app = await make(t)
    app.addSchema({ $id: 'row', type: 'object', required: ['id'], properties: { id: { type: 'integer' } } })
    app.addSchema({ $id: 'result', type: 'object', properties: { id: { type: 'integer' }, ok: { type: 'boolean' } } })
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/typed', headers: JSON_LINES, payload: '{"id":1}' })).payload, '{"id":1,"ok":true}\n')
  }],
  ["import { decode, encode } from '@msgpack/msgpack'", async (code, t) => {
    const app = await make(t)
    const row = { type: 'object', properties: { id: { type: 'integer' } } }
    const handler = async function * (request: unknown, reply: { duplex: { items: AsyncIterable<unknown> } }): AsyncGenerator<unknown> { yield * reply.duplex.items }
    const msgpack = await run(code, { app, row, result: row, jsonl: items.jsonl, handler }, 'msgpack')
    const headers = { 'content-type': 'application/x-msgpack' }
    const { encode } = msgpack({}).codec
    const payload = Buffer.concat([encode({ id: 1 }), encode({ id: 2 })])
    t.strictSame((await app.inject({ method: 'POST', url: '/events', headers, payload })).rawPayload, payload)
    const accept = 'application/jsonl'
    t.equal((await app.inject({ method: 'POST', url: '/events', headers: { ...headers, accept }, payload })).payload, '{"id":1}\n{"id":2}\n')
    const client = await app.injectDuplex({ method: 'POST', url: '/events', headers: { ...headers, accept } })
    for (const byte of payload) client.write(Buffer.of(byte))
    client.end()
    t.equal(await text(client), '{"id":1}\n{"id":2}\n')
    t.equal((await app.inject({ method: 'POST', url: '/events', headers, payload: payload.subarray(0, 6) })).statusCode, 400)
    t.equal((await app.inject({ method: 'POST', url: '/events', headers, payload: Buffer.alloc(4, 255) })).statusCode, 413)
  }]
])
