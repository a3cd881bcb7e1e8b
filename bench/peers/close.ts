// The plugin, in an app that is closed while exchanges are open. The argument chooses what ends them: `shutdown`, the handler, when
// it is told so, or `destroy`, the plugin, without a grace.

import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { serve } from './serve.ts'

async function main (endedBy: string): Promise<void> {
  const app = Fastify()
  await app.register(duplex, { closeGrace: endedBy === 'destroy' ? 0 : 60_000 })
  app.post('/echo', { duplex: true }, (_request, reply) => {
    const stream = reply.duplex
    stream.on('data', (chunk) => stream.write(chunk))
    if (endedBy === 'shutdown') stream.on('shutdown', () => stream.end())
  })
  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server, { close: () => app.close() })
}

main(process.argv[2])
