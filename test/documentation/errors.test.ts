import { make, run, testSnippets } from './snippets.ts'

testSnippets('docs/errors.md', [
  ["import type { FastifyError } from 'fastify'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    app.post('/', { duplex: { bodyLimit: 2 } }, async function * (_request, reply) { yield * reply.duplex })
    t.match(await app.inject({ method: 'POST', url: '/', payload: 'abc' }), { statusCode: 413, payload: 'FST_ERR_DUPLEX_BODY_LIMIT: The request body exceeds 2 bytes' })
  }]
])
