// An ordinary route in an app `with` the plugin or `without` it, as the argument says. With another argument, the app has that many
// more ordinary routes.

import { pipeline } from 'node:stream/promises'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { serve } from './serve.ts'

async function main (): Promise<void> {
  const before = process.cpuUsage()
  const app = Fastify()
  const hasPlugin = process.argv[2] === 'with'
  if (hasPlugin) await app.register(duplex)
  app.post('/echo', hasPlugin ? { duplex: true } : {}, async (_request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })

  const schema = { response: { 200: { type: 'object', properties: { hello: { type: 'string' } } } } }
  app.get('/plain', { schema }, async () => ({ hello: 'world' }))
  for (let i = 0; i < Number(process.argv[3] ?? 0); i++) app.get(`/plain/${i}`, async () => ({ hello: 'world' }))

  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  const { user, system } = process.cpuUsage(before)
  serve(app.server, { count: () => ({ startUp: (user + system) / 1e6 }) })
}

main()
