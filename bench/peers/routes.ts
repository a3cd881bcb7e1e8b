// An ordinary route in an app `with` the plugin or `without` it, as the argument says.

import { pipeline } from 'node:stream/promises'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { serve } from './serve.ts'

async function main (): Promise<void> {
  const app = Fastify()
  const hasPlugin = process.argv[2] === 'with'
  if (hasPlugin) await app.register(duplex)
  app.post('/echo', hasPlugin ? { duplex: true } : {}, async (_request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })

  app.get('/plain', {
    schema: { response: { 200: { type: 'object', properties: { hello: { type: 'string' } } } } }
  }, async () => ({ hello: 'world' }))

  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
