import swagger from '@fastify/swagger'
import * as items from '../../lib/items/index.ts'
import { make, run, testSnippets } from './snippets.ts'

testSnippets('docs/other-plugins.md', [
  ['import { withItemSchemas }', async (code, t) => {
    const app = await make(t)
    await run(code, { app, swagger })
    app.post('/rows', { duplex: { receive: items.jsonl({ type: 'string' }) } }, async () => {})
    await app.ready()
    t.match(app.swagger(), { paths: { '/rows': { post: { requestBody: { content: { 'application/jsonl': { itemSchema: { type: 'string' } } } } } } } })
  }],
  ['const transform = ', async (code, t) => {
    const transform = await run(code, {}, 'transform')
    t.match(transform({ schema: {}, url: '/', route: { duplex: true } }), { url: '/', schema: { 'x-duplex': true } })
    t.strictSame(transform({ schema: {}, url: '/', route: {} }), { url: '/', schema: {} })
  }]
])
