import { make, run, testSnippets } from './snippets.ts'

testSnippets('docs/clients-and-proxies.md', [
  ["app.post('/spooled'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/spooled', payload: 'all of it' })).payload, 'all of it')
  }]
])
