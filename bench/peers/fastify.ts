// Fastify's own way to stream: the body left alone by a content type parser, `reply.send(stream)`.

import type { IncomingMessage } from 'node:http'
import { finished } from 'node:stream/promises'
import Fastify from 'fastify'
import { Counter, Source, download, serve } from './serve.ts'

async function main (): Promise<void> {
  const app = Fastify()
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload))

  app.post('/echo', (request, reply) => {
    reply.type('application/octet-stream').send(request.body)
  })

  app.post('/up', async (request) => {
    const counter = new Counter()
    await finished((request.body as IncomingMessage).pipe(counter))
    return String(counter.size)
  })

  app.get('/down', (request, reply) => {
    reply.type('application/octet-stream').send(new Source(download(request.url)))
  })

  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
