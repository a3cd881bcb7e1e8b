// Every snippet of the README, compiled and run.

import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import type { FastifyInstance } from 'fastify'
import { make, run, testSnippets } from './snippets.ts'

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
])
