// Fastify's own way to stream: the body left alone by a content type parser, `reply.send(stream)`. Or, as a handler in
// charge of both sides would have it: `reply.hijack()` and a pipeline (the argument: `send`, `pipeline`).

import type { IncomingMessage } from 'node:http'
import { finished, pipeline } from 'node:stream/promises'
import Fastify, { type RouteHandlerMethod } from 'fastify'
import { Counter, Source, download, serve } from './serve.ts'

const ECHO: Record<string, RouteHandlerMethod> = {
  send (request, reply) {
    reply.type('application/octet-stream').send(request.body)
  },

  async pipeline (request, reply) {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'application/octet-stream' })
    await pipeline(request.raw, reply.raw)
  }
}

async function main (): Promise<void> {
  const app = Fastify()
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload))

  app.post('/echo', ECHO[process.argv[2]])

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
