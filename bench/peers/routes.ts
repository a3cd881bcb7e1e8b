// An ordinary route of an app, 'with' the plugin registered or 'without' (the argument).

import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { serve } from './serve.ts'

async function main (): Promise<void> {
  const app = Fastify()
  if (process.argv[2] === 'with') await app.register(duplex)

  app.get('/plain', {
    schema: { response: { 200: { type: 'object', properties: { hello: { type: 'string' } } } } }
  }, async () => ({ hello: 'world' }))

  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
