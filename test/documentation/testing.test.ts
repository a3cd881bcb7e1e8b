import assert from 'node:assert/strict'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import * as items from '../../lib/items/index.ts'
import { make, run, testSnippets } from './snippets.ts'

testSnippets('docs/testing.md', [
  ['const client = await app.injectDuplex', async (code, t) => {
    const app = await make(t)
    app.post('/upper', { duplex: true }, async function * (_request, reply) {
      for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
    })
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
  }]
])
