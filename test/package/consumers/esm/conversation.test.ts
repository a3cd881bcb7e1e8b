// The same test as example/conversation.test.ts, run by vitest.

import { once } from 'node:events'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { expect, onTestFinished, test } from 'vitest'

test('each word is answered before the next is sent', async () => {
  const app = Fastify()
  onTestFinished(() => app.close())
  await app.register(duplex)
  app.post('/upper', { duplex: true }, async function * (request, reply) {
    for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
    reply.duplex.setTrailers({ 'x-size': reply.duplex.bytesRead })
  })

  const client = await app.injectDuplex({ method: 'POST', url: '/upper' })

  client.write('hello')
  expect(String(await once(client, 'data'))).toBe('HELLO')
  expect((await client.response).statusCode).toBe(200)

  client.write('world')
  expect(String(await once(client, 'data'))).toBe('WORLD')

  client.end()
  await once(client, 'end')
  expect(client.trailers).toEqual({ 'x-size': '10' })
})
