// Tests a conversation step by step, without a port. It uses node:test, but any other test runner would do.
// `npm run test:example`

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'

test('each word is answered before the next is sent', async (t) => {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(duplex)
  app.post('/upper', { duplex: true }, async function * (request, reply) {
    reply.duplex.setEncoding('utf8') // a character may be cut between two chunks
    for await (const text of reply.duplex) yield text.toUpperCase()
    reply.duplex.setTrailers({ 'x-size': reply.duplex.bytesRead })
  })

  const client = await app.injectDuplex({ method: 'POST', url: '/upper' })

  client.write('hello')
  assert.equal(String(await once(client, 'data')), 'HELLO')
  assert.equal((await client.response).statusCode, 200)

  client.write('world')
  assert.equal(String(await once(client, 'data')), 'WORLD')

  client.end()
  await once(client, 'end')
  assert.equal(client.trailers['x-size'], '10')
})
