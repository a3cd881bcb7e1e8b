import { listen, make, run, testSnippets } from './snippets.ts'

testSnippets('docs/reply-duplex.md', [
  ["app.post('/forward'", async (code, t) => {
    const app = await make(t)
    const upstream = await make(t)
    upstream.post('/', { duplex: true }, (request, reply) => {
      reply.code(201)
      return reply.duplex.requestBody
    })
    await run(code, { app, upstream: `http://127.0.0.1:${await listen(upstream)}/` })
    t.match(await app.inject({ method: 'POST', url: '/forward', payload: 'abc' }), { statusCode: 201, payload: 'abc' })
  }]
])
