// Every snippet of the README, compiled and run.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import * as items from '../../lib/items/index.ts'
import { snippetsIn } from './pages.ts'
import { listen, make, run, testSnippets } from './snippets.ts'

testSnippets('README.md', [
  ["app.post('/upper'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/upper', payload: 'abc' })).payload, 'ABC')
    const client = await app.injectDuplex({ method: 'POST', url: '/upper' })
    const [first, last] = [Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1)]
    client.write(Buffer.concat([Buffer.from('x'), first]))
    t.equal(String((await once(client, 'data'))[0]), 'X', 'not the first byte of a character')
    client.end(last)
    t.equal(await text(client), 'É')
  }],
  ['import Fastify', async (code, t) => {
    const app: FastifyInstance = await run(code, {}, 'app')
    t.teardown(() => app.close())
    const { payload, headers } = await app.inject({ method: 'POST', url: '/echo', payload: { a: 1 } })
    t.equal(payload, '{"a":1}')
    t.match(headers, { 'content-type': 'application/json' })
  }],
  ["app.post('/forward'", async (code, t) => {
    const app = await make(t)
    const upstream = await make(t)
    upstream.post('/', { duplex: true }, (request, reply) => {
      reply.code(201)
      return reply.duplex.requestBody
    })
    await run(code, { app, upstream: `http://127.0.0.1:${await listen(upstream)}/` })
    t.match(await app.inject({ method: 'POST', url: '/forward', payload: 'abc' }), { statusCode: 201, payload: 'abc' })
  }],
  ['const client = await app.injectDuplex', async (code, t) => {
    const app = await make(t)
    await run(snippetsIn('README.md')[0].code, { app })
    const client = await run(code, { app, assert, once }, 'client')
    t.equal(await text(client), '')
  }],
  ['const importing = await app.injectDuplex', async (code, t) => {
    const app = await make(t)
    const [Row, Result] = ['id', 'ok'].map((name) => ({ type: 'object', properties: { [name]: {} } }))
    const { jsonl } = items
    const seen: unknown[] = []
    app.post('/import', { duplex: { receive: jsonl(Row), send: jsonl(Result) } }, async function * (request, reply) {
      for await (const item of reply.duplex.items) {
        seen.push(item)
        yield { ok: true }
      }
    })
    await run(code, { app, assert, jsonl, Row, Result })
    t.strictSame(seen, [{ id: 1 }])
  }],
  ['import { withItemSchemas }', async (code, t) => {
    const app = await make(t)
    await run(code, { app, swagger })
    app.post('/rows', { duplex: { receive: items.jsonl({ type: 'string' }) } }, async () => {})
    await app.ready()
    t.match(app.swagger(), { paths: { '/rows': { post: { requestBody: { content: { 'application/jsonl': { itemSchema: { type: 'string' } } } } } } } })
  }],
  ['transform: ', async (code, t) => {
    const { transform } = await run('', {}, `{ ${code} }`)
    t.match(transform({ schema: {}, url: '/', route: { duplex: true } }), { url: '/', schema: { 'x-duplex': true } })
    t.strictSame(transform({ schema: {}, url: '/', route: {} }), { url: '/', schema: {} })
  }],
])
